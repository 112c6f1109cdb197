// Requests to S3, as somebody signed them, and what is done when they fail.
const TRIES = 6
const SILENCE_MS = 60_000 // a connection that died while the computer slept says nothing at all
const PASSING = new Set(['InternalError', 'RequestTimeout', 'ServiceUnavailable', 'SlowDown'])

// A refusal by S3 or the broker; status 0 is a line that broke.
class Refused extends Error {
  constructor(status, code, message) {
    super(message || code)
    this.status = status
    this.code = code
  }

  get isExpired() {
    return this.code === 'ExpiredToken' || this.code === 'AccessDenied' && /expired/i.test(this.message)
  }

  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500 || PASSING.has(this.code)
  }
}
// What a refusal means to a person.
function sayRefusal(error) {
  const known = `refusal-${error.code}`
  if (known in WORDS.en) return say(known)
  // The broker's own sentence is for people, S3's is not.
  return error.isTold ? error.message : say('refused', { code: error.code })
}
class Stopped extends Error {} // by the person
class Problem extends Error {} // its message is for the person, and trying again won't do
const problem = (name, values) => new Problem(say(name, values))

async function read(blob) {
  try {
    return await blob.arrayBuffer()
  } catch {
    throw problem('changed')
  }
}

const readable = new Set() // origins whose answers this page may read, so that CORS is no question

// Send a signed request; resolves with the answer's XML, or null.
function send({ method, url, headers = {} }, { body = null, signal, onProgress, silence = SILENCE_MS } = {}) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(new Stopped())
    const request = new XMLHttpRequest()
    request.open(method, url)
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value)
    let heard = Date.now()
    const watch = setInterval(() => { if (Date.now() - heard > silence) request.abort() }, 1000)
    const stop = () => request.abort()
    signal?.addEventListener('abort', stop)
    request.upload.onprogress = event => { heard = Date.now(); onProgress?.(event.loaded) }
    request.onprogress = () => { heard = Date.now() }
    request.onloadend = () => {
      clearInterval(watch)
      signal?.removeEventListener('abort', stop)
      if (signal?.aborted) return reject(new Stopped())
      if (request.status === 0) return reject(Object.assign(new Refused(0, 'network'), { url }))
      const xml = request.responseText.startsWith('<') ? new DOMParser().parseFromString(request.responseText, 'text/xml') : null
      // S3 can begin with 200 and then tell of an error.
      const code = textIn(xml, 'Error > Code')
      readable.add(new URL(url).origin)
      if (request.status < 300 && !code) resolve(xml)
      else reject(new Refused(request.status, code || `HTTP ${request.status}`, textIn(xml, 'Error > Message')))
    }
    request.send(body)
  })
}
const textIn = (xml, selector) => xml?.querySelector(selector)?.textContent ?? ''

// Wait, but no longer than until the person is back or the line is: phones stop timers of pages
// that are not seen.
function rest(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(end, ms)
    function end() {
      clearTimeout(timer)
      removeEventListener('online', end)
      document.removeEventListener('visibilitychange', end)
      signal?.removeEventListener('abort', end)
      if (signal?.aborted) reject(new Stopped())
      else resolve()
    }
    addEventListener('online', end)
    document.addEventListener('visibilitychange', end)
    signal?.addEventListener('abort', end)
  })
}

// Do something until it succeeds or can't; `attempt` gets how often it failed, and signs anew.
async function persist(attempt, { signal, file, onTrouble } = {}) {
  for (let failures = 0; ;) {
    try {
      return await attempt(failures)
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      if (error.status === 0) await explainSilence(error, file, failures)
      if (/not yet valid/i.test(error.message) || error.code === 'RequestTimeTooSkewed') throw problem('clock')
      if (error.isExpired && !signer.renews) throw problem('expiredPage')
      if (error.code === 'BadDigest' || error.code === 'XAmzContentChecksumMismatch') throw problem('changed')
      if (!error.passes && !error.isExpired) throw error
      if (++failures > TRIES && navigator.onLine) throw error.status === 0 ? problem('network') : error
      onTrouble?.(say(navigator.onLine ? 'trouble' : 'offline'))
      if (!navigator.onLine) failures = 1
      await rest(navigator.onLine ? Math.min(30_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2) : 30_000, signal)
    }
  }
}

// To a page a file that changed, a missing CORS rule and a broken line all look the same.
async function explainSilence(error, file, failures) {
  if (file?.size) await read(file.slice(0, 1))
  if (failures !== 1 || !error.url) return
  const { origin, hostname, pathname } = new URL(error.url)
  if (readable.has(origin)) return
  const answers = await fetch(origin, { mode: 'no-cors' }).then(() => true, () => false)
  if (answers) throw problem('cors', { bucket: signer.bucket ?? (/^(s3|[\d.]+$|localhost)/.test(hostname) ? pathname.split('/')[1] : hostname.split('.s3.')[0]), origin: window.origin })
}
