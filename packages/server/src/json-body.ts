import type { FastifyInstance } from 'fastify'
import { ApiError } from './api-error.ts'

/** Deeper than any tool's schema, and far from where recursion over a value would overflow the stack. */
const MOST_LEVELS = 100

/**
 * Bodies are JSON and nothing else. Nesting is measured before parsing: a few megabytes of brackets take the parser seconds,
 * in which nobody else is served.
 */
export function takeJsonOnly(app: FastifyInstance, bodyLimit: number): void {
  app.removeAllContentTypeParsers()
  // `Expect: 100-continue` asks whether to send the body at all: not when it would be refused for its size.
  app.server.on('checkContinue', (request, response) => {
    if (!(Number(request.headers['content-length']) > bodyLimit)) response.writeContinue()
    app.routing(request, response)
  })
  const parse = app.getDefaultJsonParser('error', 'error')
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (deeperThan(body, MOST_LEVELS)) {
      done(new ApiError(400, 'invalid_json', `The body is nested more than ${MOST_LEVELS} levels deep.`))
      return
    }
    // It calls back, and returns nothing.
    void parse(request, body, (error, value) => done(error && invalidJson(body), value))
  })
}

/** What is wrong with a text that the parser turned down. */
function invalidJson(body: string): ApiError {
  if (body === '') return new ApiError(400, 'invalid_json', 'The body is empty; it should be a JSON object.')
  let problem = 'it has a key "__proto__" or "constructor.prototype"'
  try {
    JSON.parse(body)
  } catch (error) {
    problem = (error as Error).message.slice(0, 200)
  }
  return new ApiError(400, 'invalid_json', `The body is not JSON that can be taken: ${problem}.`)
}

/** Whether brackets outside strings nest deeper than `most`. Text that is not JSON may get either answer. */
export function deeperThan(text: string, most: number): boolean {
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22: // "
        i = endOfString(text, i)
        break
      case 0x5b: // [
      case 0x7b: // {
        if (++depth > most) return true
        break
      case 0x5d: // ]
      case 0x7d: // }
        depth--
    }
  }
  return false
}

/** The index of the quote that closes the string opened at `start`; the text's length when none does. */
function endOfString(text: string, start: number): number {
  let quote = start
  for (;;) {
    quote = text.indexOf('"', quote + 1)
    if (quote === -1) return text.length
    let backslashes = 0
    while (text.charCodeAt(quote - 1 - backslashes) === 0x5c) backslashes++
    // An odd number of them escapes the quote.
    if (backslashes % 2 === 0) return quote
  }
}
