// What survives a reload: which uploads were begun here, and where the browser can keep one, a
// handle of the file, so that it need not be chosen again. No signature and no token is kept.
const memory = {
  all() {
    try {
      return JSON.parse(localStorage.getItem('uploads')) ?? {}
    } catch {
      return {}
    }
  },

  write(uploads) {
    try {
      localStorage.setItem('uploads', JSON.stringify(uploads))
    } catch {
      // Private windows and full disks: the upload goes on, and a reload begins it again.
    }
  },

  find(upload) {
    return this.all()[upload.mark]
  },

  keep(upload) {
    const { link, path, size, modified, key, upload_id, part_bytes, delivery } = upload
    this.write({ ...this.all(), [upload.mark]: { mark: upload.mark, link, path, size, modified, key, upload_id, part_bytes, delivery } })
    if (upload.handle) handles.put(upload.mark, upload.handle)
  },

  drop({ mark }) {
    const uploads = this.all()
    delete uploads[mark]
    this.write(uploads)
    handles.delete(mark)
  },
}

const handles = {
  // Resolves with what a request of the store gives, undefined where there is no store.
  async ask(mode, request) {
    try {
      const opening = indexedDB.open('handles', 1)
      opening.onupgradeneeded = () => opening.result.createObjectStore('files')
      const database = await settled(opening)
      const answer = await settled(request(database.transaction('files', mode).objectStore('files')))
      database.close()
      return answer
    } catch {
      return undefined
    }
  },
  get: mark => handles.ask('readonly', store => store.get(mark)),
  put: (mark, handle) => handles.ask('readwrite', store => store.put(handle, mark)),
  delete: mark => handles.ask('readwrite', store => store.delete(mark)),
}
const settled = request => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result)
  request.onerror = () => reject(request.error)
})
