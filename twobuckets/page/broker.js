// The signer of a page that a link opened: the broker, which knows the link by its token. The token
// is in the address's fragment, which no server and no log sees, and it is sent to the broker only.
const token = location.hash.slice(1)
const signer = {
  renews: true,
  single: false,
  remembers: true,
  link: '',
  terms: null,

  async about() {
    if (!token) throw problem('refusal-no-link')
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token))
    this.link = Array.from(new Uint8Array(digest), byte => byte.toString(16).padStart(2, '0')).join('')
    return this.terms = await this.ask('about')
  },

  // Whether a file goes in one request.
  puts(size) {
    return size <= this.terms.part_bytes
  },

  start({ path, size, type, delivery, crc64nvme, claim }) {
    return this.ask('start', { path, size, type, delivery, crc64nvme, claim })
  },

  async parts(upload, parts) {
    const asked = parts.map(({ number, crc }) => ({ number, crc64nvme: crc }))
    const { parts: signed } = await this.ask('parts', { ...this.named(upload), parts: asked })
    return new Map(Object.entries(signed).map(([number, request]) => [Number(number), request]))
  },

  async list(upload, after) {
    return (await this.ask('finish', { ...this.named(upload), after })).list
  },

  async complete(upload) {
    return (await this.ask('finish', { ...this.named(upload), crc64nvme: upload.crc64nvme })).complete
  },

  async abort(upload) {
    return (await this.ask('finish', this.named(upload))).abort
  },

  async state({ key }) {
    return (await this.ask('state', { key })).list
  },

  named({ key, upload_id, size }) {
    return { key, upload_id, size }
  },

  async ask(action, body = {}) {
    let answer
    try {
      answer = await fetch(`api/${action}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-upload-token': token },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(SILENCE_MS),
      })
    } catch {
      throw new Refused(0, 'network')
    }
    const found = await answer.json().catch(() => ({}))
    if (answer.ok) return found
    throw Object.assign(new Refused(answer.status, found.error ?? `HTTP ${answer.status}`, found.message), { isTold: true })
  },
}
