// What survives a reload, and a killed browser: which uploads were begun here and, where the browser
// gives one, a handle of the file, so that it need not be chosen again. No signature and no token is
// kept. Where nothing can be kept, as in some private windows, a reload begins an upload again.
const memory = {
  all: async () => (await memory.ask('readonly', uploads => uploads.getAll())) ?? [],
  find: ({ mark }) => memory.ask('readonly', uploads => uploads.get(mark)),
  drop: ({ mark }) => memory.ask('readwrite', uploads => uploads.delete(mark)),

  keep({ mark, link, path, size, modified, key, upload_id, part_bytes, delivery, claim, handle }) {
    const kept = { mark, link, path, size, modified, key, upload_id, part_bytes, delivery, claim, handle }
    return this.ask('readwrite', uploads => uploads.put(kept))
  },

  // Resolves once what was asked for is done, and on the disk; with undefined where it can't be.
  async ask(mode, request) {
    if (!signer.remembers) return undefined
    try {
      const opening = indexedDB.open('uploads', 1)
      opening.onupgradeneeded = () => opening.result.createObjectStore('uploads', { keyPath: 'mark' })
      const database = await settled(opening)
      const transaction = database.transaction('uploads', mode, { durability: 'strict' })
      const done = new Promise(resolve => { transaction.oncomplete = resolve })
      const answer = await settled(request(transaction.objectStore('uploads')))
      await done
      database.close()
      return answer
    } catch {
      return undefined
    }
  },
}
const settled = request => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result)
  request.onerror = () => reject(request.error)
})
