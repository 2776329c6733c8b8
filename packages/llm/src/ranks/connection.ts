import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import { llmError } from '../errors.ts'
import { type Message, type MessageOf, readMessage } from './frames.ts'

/** Before the other end has shown who it is. */
const FIRST_LIMIT = 4096
/** A prompt of a million tokens is 7 MB. */
const LIMIT = 256 << 20
/** Of bytes that nobody has asked for yet, before `secure`. */
const MOST_UNASKED = 16 * FIRST_LIMIT
const MAC_BYTES = 32

/**
 * Messages over a socket, each behind its length (32 bits, the greatest byte first). Once `secure` was called each carries an
 * HMAC of its number and its bytes: whoever does not know the secret can neither change nor add one. What is no message, is too
 * long or has a wrong HMAC ends the connection.
 */
export class Connection {
  readonly #socket: Socket
  #chunks: Buffer[] = []
  #bytes = 0
  #needed = 4
  #limit = FIRST_LIMIT
  #keys: { readonly send: Buffer; readonly receive: Buffer } | undefined
  #sent = 0
  #received = 0
  #waiting: { resolve: (message: Message) => void; reject: (error: Error) => void } | undefined
  #ended: Error | undefined
  #onMessage: ((message: Message) => void) | undefined
  #onEnd: ((error: Error) => void) | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 10_000)
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('error', (error) => this.#end(error.message))
    socket.on('close', () => this.#end('it was closed'))
  }

  /** This end's address, as the other end may reach it. */
  get localAddress(): string {
    return this.#socket.localAddress ?? ''
  }
  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? ''
  }

  /** From now on messages carry HMACs and may be long. */
  secure(sendKey: Buffer, receiveKey: Buffer): void {
    this.#keys = { send: sendKey, receive: receiveKey }
    this.#limit = LIMIT
  }

  /** Does nothing once the connection has ended. */
  send(message: Message): void {
    if (this.#ended || this.#socket.destroyed) return
    const body = Buffer.from(JSON.stringify(message))
    const head = Buffer.alloc(4 + (this.#keys ? MAC_BYTES : 0))
    head.writeUInt32BE(head.length - 4 + body.length)
    if (this.#keys) macOf(this.#keys.send, this.#sent++, body).copy(head, 4)
    this.#socket.cork()
    this.#socket.write(head)
    this.#socket.write(body)
    this.#socket.uncork()
  }

  /** The next message. Rejects when the connection has ended. One caller at a time. */
  next(): Promise<Message> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#pump()
      if (this.#ended) this.#rejectWaiting(this.#ended)
    })
  }

  /** The next message, which has to be of this type and to come in time. Throws RANK_CHANNEL. */
  async expect<T extends Message['type']>(type: T, ms: number): Promise<MessageOf<T>> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(llmError('RANK_CHANNEL', `no ${type} came within ${ms / 1000} s`)), ms)
    })
    try {
      const message = await Promise.race([this.next(), late])
      if (message.type === 'refused') throw llmError('RANK_CHANNEL', message.reason)
      if (message.type !== type) throw llmError('RANK_CHANNEL', `${message.type} came where ${type} should`)
      return message as MessageOf<T>
    } finally {
      clearTimeout(timer)
    }
  }

  /** Hands over every message from now on. onEnd: once, also when it had ended before. */
  listen(onMessage: (message: Message) => void, onEnd: (error: Error) => void): void {
    this.#onMessage = onMessage
    this.#pump()
    if (this.#ended) onEnd(this.#ended)
    else this.#onEnd = onEnd
  }

  /** What was sent still goes out. */
  close(): void {
    this.#socket.end()
    this.#socket.unref()
  }

  destroy(): void {
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (!this.#keys && this.#bytes > MOST_UNASKED) this.#fail('more came than a greeting is long')
    else this.#pump()
  }

  /** Takes messages for as long as somebody wants them: what follows a greeting is read with the keys that came of it. */
  #pump(): void {
    while ((this.#waiting || this.#onMessage) && this.#bytes >= this.#needed) {
      const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#bytes)
      const length = all.readUInt32BE(0)
      if (length > this.#limit) {
        this.#fail(`a message of ${length} bytes came; ${this.#limit} is the most`)
        return
      }
      this.#chunks = [all]
      this.#needed = 4 + length
      if (all.length < this.#needed) return
      const rest = all.subarray(this.#needed)
      this.#chunks = rest.length > 0 ? [rest] : []
      this.#bytes = rest.length
      this.#needed = 4
      this.#take(all.subarray(4, 4 + length))
    }
  }

  #take(frame: Buffer): void {
    const body = this.#bodyOf(frame)
    const message = body && readMessage(body)
    if (!body) this.#fail('a message was not from the other end, or was changed on its way')
    else if (!message) this.#fail('something came that is no message')
    else if (this.#onMessage) this.#onMessage(message)
    else {
      this.#waiting?.resolve(message)
      this.#waiting = undefined
    }
  }

  /** Undefined when it does not carry the HMAC that it should. */
  #bodyOf(frame: Buffer): Buffer | undefined {
    if (!this.#keys) return frame
    const [mac, body] = [frame.subarray(0, MAC_BYTES), frame.subarray(MAC_BYTES)]
    const genuine = mac.length === MAC_BYTES && timingSafeEqual(mac, macOf(this.#keys.receive, this.#received++, body))
    return genuine ? body : undefined
  }

  #rejectWaiting(error: Error): void {
    this.#waiting?.reject(error)
    this.#waiting = undefined
  }

  #fail(why: string): void {
    this.#chunks = []
    this.#bytes = 0
    this.#end(why)
    this.#socket.destroy()
  }

  #end(why: string): void {
    if (this.#ended) return
    this.#ended = llmError('RANK_CHANNEL', why)
    this.#rejectWaiting(this.#ended)
    this.#onEnd?.(this.#ended)
  }
}

function macOf(key: Buffer, number: number, body: Buffer): Buffer {
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(number))
  return createHmac('sha256', key).update(counter).update(body).digest()
}
