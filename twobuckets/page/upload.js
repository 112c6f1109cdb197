// One file on its way. What S3 has is asked of S3 itself: no answer's ETag header has to be
// readable, and after an interruption only what is missing is sent.
const MOST_IN_FLIGHT = 4
const QUICK_PART_MS = 10_000
const PARTS_A_BATCH = 8
const COMPLETING_MS = 10 * 60_000 // S3 puts large objects together for minutes
const ENDED = new Set(['received', 'processed', 'rejected', 'cancelled'])

class Upload {
  // `changed` is called when there is something else to show.
  constructor(file, path, { delivery, handle, changed }) {
    Object.assign(this, { file, path, delivery, handle, changed })
    this.size = file.size
    this.type = file.type
    this.modified = file.lastModified
    this.link = signer.link
    this.mark = JSON.stringify([this.link, path, this.size, this.modified])
    this.done = 0 // bytes in parts that S3 has
    this.moving = new Map() // bytes sent of the parts in flight, by number
    this.show('waiting', say('waiting'))
  }

  show(state, note) {
    this.state = state
    this.note = note
    this.changed(this)
  }

  get sent() {
    return Math.min(this.size, [...this.moving.values()].reduce((sum, bytes) => sum + bytes, this.done))
  }

  get isOver() {
    return ENDED.has(this.state)
  }

  get count() {
    return Math.max(1, Math.ceil(this.size / this.part_bytes))
  }

  slice(number) {
    return this.file.slice((number - 1) * this.part_bytes, number * this.part_bytes)
  }

  progressed() {
    if (this.state !== 'running') return
    const seconds = (performance.now() - this.began) / 1000
    const rate = (this.sent - this.before) / Math.max(seconds, 0.2)
    const values = { sent: sayBytes(this.sent), size: sayBytes(this.size), rate: sayBytes(rate) }
    const left = rate > 0 && seconds > 2 ? saySeconds((this.size - this.sent) / rate) : null
    this.show('running', left ? say('runningLeft', { ...values, left }) : say('running', values))
  }

  stop(state) {
    this.stopped = state
    this.stopping?.abort()
    if (this.state !== 'running') this.show(state, say(state))
  }

  async cancel() {
    this.stop('cancelled')
    await this.ending
    await discard(this)
  }

  run() {
    this.ending = this.runOnce()
    return this.ending
  }

  async runOnce() {
    this.stopping = new AbortController()
    this.moving.clear()
    this.show('running', say('starting'))
    try {
      await alone(this.mark, () => this.transfer(this.stopping.signal))
      await memory.drop(this)
      this.show('received', say('received'))
    } catch (error) {
      this.moving.clear()
      if (error instanceof Stopped) this.show(this.stopped, say(this.stopped))
      else if (error instanceof Refused) this.show('failed', sayRefusal(error))
      else this.show('failed', error.message)
    }
  }

  async transfer(signal) {
    const options = { signal, file: this.file, onTrouble: note => this.show('running', note) }
    if (signer.puts?.(this.size)) return this.put(options)
    let kept = await this.open(options)
    for (let rounds = 0; ; rounds++) {
      const missing = await this.compare(kept, signal)
      if (!missing.length) break
      // What S3 has of a part is not what was sent, twice: the file is being written to.
      if (rounds === 2) throw problem('changed')
      await this.sendParts(missing, options)
      kept = await this.listed(options)
    }
    await this.complete(kept, options)
  }

  // A small file goes in one request.
  async put(options) {
    this.crc64nvme = crcs.text(await crcs.of(this.file))
    this.began = performance.now()
    this.before = 0
    await persist(async () => {
      const plan = await signer.start(this)
      this.adopt({ ...plan, delivery: this.delivery })
      const onProgress = bytes => { this.moving.set(1, bytes); this.progressed() }
      try {
        await send(plan.put, { ...options, body: this.file, onProgress })
      } catch (error) {
        // The key is this file's own: what is there is an earlier try, whose answer was lost.
        if (error.status === 412 && this.isTried) return
        // Stopped, or answered nothing or a failure of S3's own, a try can have arrived.
        this.isTried ||= !error.status || error.status >= 500
        throw error.status === 412 ? problem('taken') : error
      }
    }, options)
    this.moving.clear()
    this.done = this.size
  }

  // Go on with the upload of an earlier visit, or begin one; resolves with the parts in S3.
  async open(options) {
    if (!this.upload_id) this.adopt((await memory.find(this)) ?? this)
    const isNew = !this.upload_id
    if (isNew) await this.begin(options)
    if (isNew && !signer.single) return new Map()
    try {
      return await this.listed(options)
    } catch (error) {
      if (error.code !== 'NoSuchUpload') throw error
      await memory.drop(this)
      this.upload_id = null
      if (signer.single) throw problem('ended')
      return this.open(options)
    }
  }

  adopt({ key, upload_id, part_bytes, delivery, claim }) {
    Object.assign(this, { key, upload_id, part_bytes, delivery, claim })
  }

  async begin(options) {
    const plan = await persist(() => signer.start(this), options)
    this.adopt({ ...plan, delivery: this.delivery })
    if (plan.create) this.upload_id = textIn(await persist(() => send(plan.create, options), options), 'UploadId')
    await memory.keep(this)
  }

  // Return the numbers of the parts that S3 lacks, or has otherwise than the file.
  async compare(kept, signal) {
    if (kept.size) this.show('running', say('comparing'))
    this.done = 0
    this.crcs ??= new Map()
    const missing = []
    for (let number = 1; number <= this.count; number++) {
      if (signal.aborted) throw new Stopped()
      const part = kept.get(number), blob = this.slice(number)
      if (part?.size === blob.size) {
        if (!this.crcs.has(number)) this.crcs.set(number, await crcs.of(blob))
        if (part.crc === crcs.text(this.crcs.get(number))) {
          this.done += blob.size
          continue
        }
      }
      this.crcs.delete(number)
      missing.push(number)
    }
    return missing
  }

  async sendParts(missing, options) {
    this.began = performance.now()
    this.before = this.done
    this.progressed()
    // The first failure ends the others, and is what the person is told.
    const ending = new AbortController()
    const signal = AbortSignal.any([options.signal, ending.signal])
    const queue = [...missing], signed = new Map(), workers = []
    let failure = null
    const work = async () => {
      for (let number; (number = queue.shift());) {
        const started = performance.now()
        await this.sendPart(number, queue, signed, { ...options, signal })
        // On a slow line a part more in flight is only a part more to lose.
        const isQuick = performance.now() - started < QUICK_PART_MS
        if (isQuick && queue.length && workers.length < MOST_IN_FLIGHT) employ()
      }
    }
    const employ = () => workers.push(work().catch(error => { failure ??= error; ending.abort() }))
    employ()
    employ()
    for (let at = 0; at < workers.length; at++) await workers[at]
    if (failure) throw options.signal.aborted ? new Stopped() : failure
  }

  async sendPart(number, queue, signed, options) {
    const blob = this.slice(number)
    await persist(async failures => {
      if (failures) signed.delete(number)
      if (!signed.has(number)) await this.signParts([number, ...queue.slice(0, PARTS_A_BATCH - 1)], signed)
      const onProgress = bytes => { this.moving.set(number, bytes); this.progressed() }
      await send(signed.get(number), { ...options, body: blob, onProgress })
    }, { ...options, file: blob })
    this.moving.delete(number)
    this.done += blob.size
    this.progressed()
  }

  async signParts(numbers, signed) {
    for (const number of numbers) {
      if (!this.crcs.has(number)) this.crcs.set(number, await crcs.of(this.slice(number)))
    }
    const parts = numbers.map(number => ({ number, crc: crcs.text(this.crcs.get(number)) }))
    for (const [number, request] of await signer.parts(this, parts)) signed.set(number, request)
  }

  async complete(parts, options) {
    this.show('running', say('finishing'))
    let crc = this.crcs.get(1)
    for (let number = 2; number <= this.count; number++) crc = crcs.combine(crc, this.crcs.get(number), this.slice(number).size)
    this.crc64nvme = crcs.text(crc)
    const body = completing([...parts.values()].slice(0, this.count))
    const xml = await persist(async failures => {
      const request = await signer.complete(this)
      // As bytes: to a text a browser may add its encoding, which is not in what was signed.
      return send(request, { ...options, body: new TextEncoder().encode(body), silence: COMPLETING_MS }).catch(error => this.explainEnd(error, failures, options))
    }, options)
    const stored = textIn(xml, 'ChecksumCRC64NVME')
    if (stored && stored !== this.crc64nvme) throw problem('differs')
  }

  // A refusal at the end can mean that an earlier try, whose answer was lost, had succeeded.
  async explainEnd(error, failures, options) {
    if (error.status === 412) {
      const isThere = await this.listed(options).then(() => true, why => { if (why.code === 'NoSuchUpload') return false; throw why })
      if (isThere) throw problem('taken')
      return null
    }
    if (error.code === 'NoSuchUpload') throw problem(failures ? 'unsure' : 'incomplete')
    throw error
  }

  // What S3 has, by the number of the part.
  async listed(options) {
    const parts = new Map()
    for (let after = 0; ;) {
      const xml = await persist(async () => send(await signer.list(this, after), options), options)
      for (const part of xml.querySelectorAll('Part')) {
        const number = Number(textIn(part, 'PartNumber'))
        parts.set(number, { number, size: Number(textIn(part, 'Size')), etag: textIn(part, 'ETag'), crc: textIn(part, 'ChecksumCRC64NVME') })
      }
      if (textIn(xml, 'IsTruncated') !== 'true') return parts
      after = Number(textIn(xml, 'NextPartNumberMarker'))
    }
  }
}

function completing(parts) {
  const listed = parts.map(({ number, etag, crc }) =>
    `<Part><PartNumber>${number}</PartNumber><ETag>${etag.replaceAll('"', '&quot;')}</ETag><ChecksumCRC64NVME>${crc}</ChecksumCRC64NVME></Part>`)
  return `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${listed.join('')}</CompleteMultipartUpload>`
}

// Forget an upload, and take back what S3 has of it.
async function discard(upload) {
  await memory.drop(upload)
  if (!upload.upload_id || !signer.abort) return
  await persist(async () => send(await signer.abort(upload))).catch(() => {})
  upload.upload_id = null
}

// Do something that another tab must not do at the same time.
async function alone(name, work) {
  if (!navigator.locks) return work()
  return navigator.locks.request(name, { ifAvailable: true }, lock => {
    if (!lock) throw problem('otherTab')
    return work()
  })
}

// Watch what becomes of received files: gone from staging means processed. Slower by and by, and a
// few at a time however many there are.
const MOST_WATCHED = 4
const WATCH_MS = 30 * 60_000
const fates = {
  waiting: [],
  running: 0,

  watch(upload) {
    if (upload.isWatched) return
    upload.isWatched = true
    this.waiting.push({ upload, due: performance.now() + 1000, pause: 1000, until: performance.now() + WATCH_MS })
    this.turn()
  },

  async turn() {
    if (this.running || !this.waiting.length) return
    this.running = 1
    while (this.waiting.length) {
      this.waiting.sort((one, other) => one.due - other.due)
      await rest(Math.max(0, this.waiting[0].due - performance.now()))
      const due = this.waiting.splice(0, MOST_WATCHED)
      await Promise.all(due.map(item => this.look(item)))
    }
    this.running = 0
  },

  async look(item) {
    const { upload } = item
    try {
      upload.question ??= await signer.state(upload)
      const xml = await send(upload.question)
      // Asked for one key, S3 lists a longer one that begins with it.
      const keys = [...xml.querySelectorAll('Contents > Key')].map(key => decodeURIComponent(key.textContent.replaceAll('+', ' ')))
      if (!keys.includes(upload.key)) return upload.show('processed', say('processed'))
      upload.show('received', say('receivedWaiting'))
    } catch (error) {
      // What was received stays received.
      if (error instanceof Refused && !error.passes && !error.isExpired) return
      if (error.isExpired) delete upload.question
    }
    item.pause = Math.min(30_000, item.pause * 1.5)
    item.due = performance.now() + item.pause
    if (item.due < item.until) this.waiting.push(item)
    else upload.show('received', say('receivedLate'))
  },
}
