import { bad, component, JsonNode } from './json.ts'

/** Puts special tokens around the ids of a text. What comes of one processor are several lists, each of which the next wraps. */
export type PostProcessor = (lists: readonly (readonly number[])[]) => readonly (readonly number[])[]

/** The `post_processor` of a tokenizer.json, for one text. */
export function readPostProcessor(node: JsonNode): PostProcessor {
  return component<PostProcessor>(node, POST_PROCESSORS)
}

/** `[CLS] A [SEP]`, and for further lists `B [SEP]`. */
const bert = (node: JsonNode): PostProcessor => {
  const [cls, sep] = [pairId(node, 'cls'), pairId(node, 'sep')]
  return (lists) => lists.map((ids, i) => (i === 0 ? [cls, ...ids, sep] : [...ids, sep]))
}

/** `<s> A </s>`, and for further lists `</s> B </s>`. */
const roberta = (node: JsonNode): PostProcessor => {
  const [cls, sep] = [pairId(node, 'cls'), pairId(node, 'sep')]
  return (lists) => lists.map((ids, i) => [i === 0 ? cls : sep, ...ids, sep])
}

const POST_PROCESSORS: Readonly<Record<string, (node: JsonNode) => PostProcessor>> = {
  TemplateProcessing: readTemplate,
  BertProcessing: bert,
  RobertaProcessing: roberta,
  // It only moves offsets, which nobody here keeps.
  ByteLevel: () => (lists) => lists,
  Sequence: (node) => {
    const parts = node.nodes('processors').map(readPostProcessor)
    return (lists) => parts.reduce((result, part) => part(result), lists)
  },
}

/** `["[CLS]", 101]` */
function pairId(node: JsonNode, key: string): number {
  const pair = node.array(key)
  if (pair.length !== 2 || !Number.isInteger(pair[1])) throw bad(node.at(key), 'must be a token and its id')
  return pair[1] as number
}

const SEQUENCES = ['A', 'B'] as const

/** Ids of special tokens, or the place of a list. */
type Piece = readonly number[] | 'A' | 'B'

function readTemplate(node: JsonNode): PostProcessor {
  const specials = node.node('special_tokens')
  const single = readPieces(node, 'single', specials)
  const pair = node.has('pair') ? readPieces(node, 'pair', specials) : []
  return (lists) => {
    const template = lists.length === 1 ? single : lists.length === 2 ? pair : undefined
    if (!template) throw bad(node.path, `is given ${lists.length} lists by the processors before it; a template takes one or two`)
    return template.map((piece) => (piece === 'A' ? lists[0]! : piece === 'B' ? (lists[1] ?? []) : piece))
  }
}

function readPieces(node: JsonNode, key: string, specials: JsonNode): Piece[] {
  return node.nodes(key).map((piece): Piece => {
    if (piece.has('Sequence')) return piece.node('Sequence').oneOf('id', SEQUENCES)
    const name = piece.node('SpecialToken').string('id')
    if (!specials.has(name)) throw bad(piece.at('SpecialToken.id'), `is ${JSON.stringify(name)}, which special_tokens does not have`)
    const special = new JsonNode(specials.get(name), specials.at(name))
    return special.array('ids').map((id, i) => {
      if (!Number.isInteger(id)) throw bad(`${special.at('ids')}[${i}]`, 'must be an integer')
      return id as number
    })
  })
}
