import { bad, JsonNode } from './json.ts'
import { compileRegex } from './regex.ts'

/** What becomes of the matches when a text is split at them. */
export const SPLIT_BEHAVIORS = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const
export type SplitBehavior = (typeof SPLIT_BEHAVIORS)[number]

/** `{ "String": … }` or `{ "Regex": … }`, as a global `v` expression. */
export function readPattern(node: JsonNode, key: string): RegExp {
  const value = node.get(key)
  const pattern = typeof value === 'string' ? { String: value } : value
  const fields = new JsonNode(pattern, node.at(key))
  if (fields.has('String')) return literalRegex(fields.string('String'))
  if (fields.has('Regex')) return compileRegex(fields.string('Regex'), fields.path)
  throw bad(fields.path, 'must have "String" or "Regex"')
}

export const literalRegex = (text: string): RegExp =>
  new RegExp([...text].map((char) => `\\u{${char.codePointAt(0)!.toString(16)}}`).join(''), 'gv')

/** Cuts a text at the matches of a global expression; empty pieces are left out. */
export function splitter(regex: RegExp, behavior: SplitBehavior, invert = false): (text: string) => Iterable<string> {
  if (behavior === 'Isolated') {
    // Inverting swaps matches and gaps, and both are pieces here.
    const sticky = new RegExp(regex.source, 'yv')
    return (text) => isolated(text, sticky, regex)
  }
  if (behavior === 'Removed') return (text) => removed(text, regex, invert)
  return (text) => merged(text, regex, behavior, invert)
}

/** Most split expressions match everywhere: the sticky one tells where a match ends without making an object of it. */
function* isolated(text: string, sticky: RegExp, global: RegExp): Generator<string> {
  let at = 0
  while (at < text.length) {
    sticky.lastIndex = at
    if (sticky.test(text) && sticky.lastIndex > at) {
      const end = sticky.lastIndex
      yield text.slice(at, end)
      at = end
      continue
    }
    for (const piece of spans(text, global, at)) {
      yield text.slice(piece.start, piece.end)
      at = piece.end
      if (piece.match) break
    }
  }
}

function* removed(text: string, regex: RegExp, invert: boolean): Generator<string> {
  for (const span of spans(text, regex)) if (span.match === invert) yield text.slice(span.start, span.end)
}

interface Span {
  start: number
  end: number
  match: boolean
}

/** Matches and what lies between them, in order, without empty spans. */
function* spans(text: string, regex: RegExp, from = 0): Generator<Span> {
  let previous = from
  let at = from
  for (;;) {
    regex.lastIndex = at
    const match = regex.exec(text)
    if (match === null) break
    const start = match.index
    const end = start + match[0].length
    if (end === start) {
      // An empty match cuts the text where it is.
      if (start > previous) {
        yield { start: previous, end: start, match: false }
        previous = start
      }
      at = end + (text.codePointAt(end)! > 0xffff ? 2 : 1)
      if (at > text.length) break
      continue
    }
    if (start > previous) yield { start: previous, end: start, match: false }
    yield { start, end, match: true }
    previous = end
    at = end
  }
  if (previous < text.length) yield { start: previous, end: text.length, match: false }
}

function* merged(text: string, regex: RegExp, behavior: SplitBehavior, invert: boolean): Generator<string> {
  let open: Span | undefined
  for (const span of spans(text, regex)) {
    const match = span.match !== invert
    const joins =
      open !== undefined &&
      (behavior === 'MergedWithPrevious'
        ? match && !open.match
        : behavior === 'MergedWithNext'
          ? !match && open.match
          : match === open.match)
    if (open && joins) open = { start: open.start, end: span.end, match }
    else {
      if (open) yield text.slice(open.start, open.end)
      open = { ...span, match }
    }
  }
  if (open) yield text.slice(open.start, open.end)
}
