// What the person sees: files chosen or dropped, a row each, and how it all ends.
const $ = id => document.getElementById(id)
const uploads = []
const paths = new Set()
const PLACES = 6 // for small files; one that goes in parts takes three of them
let terms

class Row {
  constructor(place) {
    const li = this.li = document.createElement('li')
    this.name = li.appendChild(element('span', 'name'))
    this.buttons = li.appendChild(element('span', 'buttons'))
    this.progress = li.appendChild(document.createElement('progress'))
    this.note = li.appendChild(element('span', 'note'))
    place.append(li)
  }

  button(name, path, act) {
    const button = this.buttons.appendChild(element('button', name))
    button.type = 'button'
    button.textContent = say(name)
    button.setAttribute('aria-label', say('about', { action: say(name), path }))
    button.onclick = act
  }

  show(upload) {
    this.name.textContent = upload.path
    this.progress.value = upload.size ? upload.sent / upload.size : 0
    this.progress.setAttribute('aria-label', upload.path)
    this.note.textContent = upload.note
    if (this.li.dataset.state === upload.state) return
    settleSoon()
    this.li.dataset.state = upload.state
    const hadFocus = this.buttons.contains(document.activeElement)
    this.buttons.replaceChildren()
    if (upload.isOver) return
    if (upload.state === 'running') this.button('pause', upload.path, () => upload.stop('paused'))
    if (upload.state === 'paused') this.button('resume', upload.path, () => upload.run())
    if (upload.state === 'failed' && !upload.isRefused) this.button('retry', upload.path, () => upload.run())
    if (!upload.isRefused) this.button('cancel', upload.path, () => upload.cancel())
    if (hadFocus) this.buttons.firstChild?.focus()
  }
}

function element(tag, className) {
  const made = document.createElement(tag)
  made.className = className
  return made
}

function announce(text) {
  if ($('said').textContent !== text) $('said').textContent = text
}

// Show a file, and send it unless there is a refusal. Never fails: the others wait for their turn.
async function add(file, path, handle, refusal = refusalOf(file)) {
  let { delivery } = terms
  // The same path once more is another file, and must not meet the first one under its key.
  const end = endOfKey(path)
  if (paths.has(end) && !signer.single && !refusal) {
    try {
      ({ delivery } = await persist(() => signer.about()))
    } catch (error) {
      refusal = error instanceof Refused ? sayRefusal(error) : error.message
    }
  }
  paths.add(end)
  $('kept').hidden = true
  $('files-sent').hidden = false
  const row = new Row($('list'))
  const upload = new Upload(file, path, { delivery, handle, changed: upload => row.show(upload) })
  uploads.push(upload)
  if (!refusal) return
  upload.isRefused = true
  upload.show('failed', refusal)
}

// What was chosen and can't be read is not received, and the person must see that.
const addUnreadable = (name, path) => add(new File([], name), path, undefined, say('changed'))

// What the broker makes of a path: two paths can be one by it.
function endOfKey(path) {
  const text = path.normalize('NFC').replaceAll('\\', '/').replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '_')
  return text.split('/').map(segment => segment.trim()).filter(segment => !['', '.', '..'].includes(segment)).join('/')
}

function refusalOf(file) {
  if (terms.size_bytes != null && file.size !== terms.size_bytes) {
    return say('wrongSize', { size: sayBytes(terms.size_bytes), has: sayBytes(file.size) })
  }
  const extension = file.name.slice(file.name.lastIndexOf('.') + 1).toLowerCase()
  if (terms.types?.length && !terms.types.includes(extension)) return say('wrongType', { types: terms.types.join(', ') })
  if (file.size > terms.max_bytes) return say('tooLarge', { size: sayBytes(terms.max_bytes) })
  return null
}

// Start what has a place, and say how it stands; once for all that changes at a time.
let isSettling = false
function settleSoon() {
  if (isSettling) return
  isSettling = true
  setTimeout(() => { isSettling = false; settle() })
}

function settle() {
  const inState = (...states) => uploads.filter(upload => states.includes(upload.state))
  let free = inState('running').reduce((left, upload) => left - placesOf(upload), PLACES)
  for (const upload of inState('waiting')) {
    if (free <= 0) break
    free -= placesOf(upload)
    upload.run()
  }
  for (const upload of inState('received')) fates.watch(upload)
  const counted = uploads.filter(upload => upload.state !== 'cancelled')
  const over = counted.filter(upload => upload.isOver), failed = inState('failed').length
  const isBusy = inState('waiting', 'running').length > 0
  $('overall').textContent = say('overall', { done: over.length, n: counted.length })
  $('receipt').hidden = !over.length || isBusy
  if (signer.single) $('drop').hidden = counted.some(upload => !upload.isRefused)
  if (failed && !isBusy) announce(say('someFailed', { n: failed }))
  else if (over.length && inState('processed').length === counted.length) announce(say('allProcessed', { n: over.length }))
  else if (over.length && over.length === counted.length) announce(say('allReceived', { n: over.length }))
  stayAwake(isBusy)
}
const placesOf = upload => upload.size > 8 * 2 ** 20 ? 3 : 1

// A phone that dims its screen stops the page.
let wakeLock = null
async function stayAwake(isBusy) {
  try {
    if (isBusy && document.visibilityState === 'visible') {
      if (!wakeLock || (await wakeLock)?.released) await (wakeLock = navigator.wakeLock?.request('screen'))
    } else if (!isBusy) {
      const held = await wakeLock
      wakeLock = null
      await held?.release()
    }
  } catch {
    wakeLock = null // not allowed: the battery is low
  }
}

function saveReceipt() {
  const lines = uploads.filter(upload => upload.isOver && upload.state !== 'cancelled')
    .map(upload => `${upload.path}\n  ${upload.size.toLocaleString(LOCALE)} B, CRC64NVME ${upload.crc64nvme}\n  ${upload.note}\n  ${upload.key}`)
  const text = `${say('receiptTitle')}: ${terms.title || document.title}\n${sayInstant(Date.now() / 1000)}\n\n${lines.join('\n')}\n`
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([text], { type: 'text/plain' }))
  link.download = say('receiptName')
  link.click()
  URL.revokeObjectURL(link.href)
}

// Files and folders that were dropped; the list of what was dropped is empty after the first wait.
async function drop(items) {
  const dropped = [...items].filter(item => item.kind === 'file')
    .map(item => ({ entry: item.webkitGetAsEntry?.(), handle: item.getAsFileSystemHandle?.(), file: item.getAsFile() }))
  for (const { entry, handle, file } of dropped.slice(0, signer.single ? 1 : undefined)) {
    if (entry?.isDirectory) await walk(entry, '')
    else if (file) await add(file, file.name, await handle?.catch(() => undefined))
  }
}

async function walk(entry, above) {
  const path = above + entry.name
  try {
    if (entry.isFile) return await add(await new Promise((resolve, reject) => entry.file(resolve, reject)), path)
    const reader = entry.createReader()
    for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) {
      for (const child of some) await walk(child, `${path}/`)
    }
  } catch {
    await addUnreadable(entry.name, path)
  }
}

// Where the browser gives handles of what is chosen, an interrupted file need not be chosen again.
async function pick() {
  if (!window.showOpenFilePicker) return $('files').click()
  try {
    for (const handle of await showOpenFilePicker({ multiple: !signer.single })) {
      const file = await handle.getFile().catch(() => null)
      await (file ? add(file, handle.name, handle) : addUnreadable(handle.name, handle.name))
    }
  } catch (error) {
    if (error.name !== 'AbortError') $('files').click()
  }
}

function showKept(kept, resume) {
  const row = new Row($('kept-list'))
  row.progress.remove()
  row.name.textContent = kept.path
  row.note.textContent = kept.note
  if (resume) row.button('resume', kept.path, resume)
  if (signer.abort) row.button('discard', kept.path, async () => { row.li.remove(); await discard(kept); $('kept').hidden = !$('kept-list').children.length })
  $('kept').hidden = false
}

async function offerKept() {
  const known = (await memory.all()).filter(kept => kept.link === signer.link)
  for (const kept of known.length || !signer.single ? known : [await signer.start({ size: 0 })]) {
    const sent = await keptBytes(kept)
    if (sent === null) {
      await memory.drop(kept)
      if (signer.single) throw problem('ended')
    } else if (kept.path) {
      const note = say('keptOf', { sent: sayBytes(sent), size: sayBytes(kept.size) })
      showKept({ ...kept, note }, kept.handle && (() => continueWith(kept)))
    } else if (sent) {
      showKept({ ...kept, path: kept.key, note: say('keptSent', { sent: sayBytes(sent) }) })
    }
  }
}

async function continueWith({ handle, path }) {
  if (await handle.requestPermission?.({ mode: 'read' }) === 'denied') return
  await add(await handle.getFile(), path, handle)
}

// How much S3 has of an upload; null when there is no such upload any more.
async function keptBytes(kept) {
  const asked = Object.assign(Object.create(Upload.prototype), kept)
  try {
    return [...(await asked.listed({})).values()].reduce((sum, part) => sum + part.size, 0)
  } catch (error) {
    if (error.code === 'NoSuchUpload') return null
    throw error
  }
}

async function begin() {
  document.documentElement.lang = LANGUAGE
  if (!AbortSignal.any) return $('terms').textContent = say('tooOld')
  const many = signer.single ? 1 : 2
  $('title').textContent = document.title = say('title', { n: many })
  for (const [id, text] of Object.entries({
    invitation: say('dropHere', { n: many }), pick: say('chooseFiles', { n: many }), 'pick-folder': say('chooseFolder'),
    'kept-title': say('interrupted'), 'kept-hint': say('chooseAgain'), receipt: say('saveReceipt'),
  })) $(id).textContent = text
  try {
    terms = await persist(() => signer.about())
    showTerms()
    await offerKept()
  } catch (error) {
    return $('terms').textContent = error instanceof Refused ? sayRefusal(error) : error.message
  }
  $('drop').hidden = false
  $('files').multiple = !signer.single
  if (terms.types?.length) $('files').accept = terms.types.map(type => `.${type}`).join()
  $('pick-folder').hidden = signer.single || !('webkitdirectory' in $('folder'))
  $('pick').onclick = pick
  $('pick-folder').onclick = () => $('folder').click()
  for (const id of ['files', 'folder']) {
    $(id).onchange = async event => {
      for (const file of [...event.target.files]) await add(file, file.webkitRelativePath || file.name)
      event.target.value = ''
    }
  }
  $('receipt').onclick = saveReceipt
  addEventListener('dragover', event => { event.preventDefault(); $('drop').classList.add('over') })
  addEventListener('dragleave', () => $('drop').classList.remove('over'))
  addEventListener('drop', event => { event.preventDefault(); $('drop').classList.remove('over'); if (!$('drop').hidden) drop(event.dataTransfer.items) })
  addEventListener('beforeunload', event => { if (uploads.some(upload => upload.state === 'running')) event.preventDefault() })
  document.addEventListener('visibilitychange', () => stayAwake(uploads.some(upload => upload.state === 'running')))
}

function showTerms() {
  if (terms.title) $('title').textContent = document.title = terms.title
  $('sentence').textContent = terms.sentence || (terms.key ? say('forKey', { key: terms.key }) : '')
  $('sentence').hidden = !$('sentence').textContent
  if (terms.accent) useAccent(terms.accent)
  const values = { until: sayInstant(terms.expires_at), size: sayBytes(terms.size_bytes ?? terms.max_bytes ?? 0), n: terms.max_files }
  const name = terms.size_bytes != null ? 'termsExact' : terms.max_files != null ? 'termsMany' : terms.max_bytes != null ? 'terms' : 'termsOpen'
  const types = terms.types?.length ? ` ${say('termsTypes', { types: terms.types.join(', ') })}` : ''
  $('terms').textContent = say(name, values) + types
}

// The operator's colour, and black or white on it, whichever is easier to read (WCAG 2, contrast).
function useAccent(accent) {
  const [red, green, blue] = accent.match(/[0-9a-f]{2}/gi).map(digits => {
    const share = parseInt(digits, 16) / 255
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
  })
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
  document.documentElement.style.setProperty('--accent', accent)
  document.documentElement.style.setProperty('--on-accent', luminance > 0.179 ? '#000' : '#fff')
}

begin()
