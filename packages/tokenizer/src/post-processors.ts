import { bad, component, JsonNode } from './json.ts'

/** Puts special tokens around the ids of a text. */
export type PostProcessor = (ids: number[]) => number[]

/** The `post_processor` of a tokenizer.json, for one text. */
export function readPostProcessor(node: JsonNode): PostProcessor {
  return component<PostProcessor>(node, POST_PROCESSORS)
}

const around: (node: JsonNode) => PostProcessor = (node) => {
  const before = pairId(node, 'cls')
  const after = pairId(node, 'sep')
  return (ids) => [before, ...ids, after]
}

const POST_PROCESSORS: Readonly<Record<string, (node: JsonNode) => PostProcessor>> = {
  TemplateProcessing: readTemplate,
  BertProcessing: around,
  RobertaProcessing: around,
  // It only moves offsets, which nobody here keeps.
  ByteLevel: () => (ids) => ids,
  Sequence: (node) => {
    const parts = node.nodes('processors').map(readPostProcessor)
    return (ids) => parts.reduce((result, part) => part(result), ids)
  },
}

/** `["[CLS]", 101]` */
function pairId(node: JsonNode, key: string): number {
  const pair = node.array(key)
  if (pair.length !== 2 || !Number.isInteger(pair[1])) throw bad(node.at(key), 'must be a token and its id')
  return pair[1] as number
}

function readTemplate(node: JsonNode): PostProcessor {
  const specials = node.node('special_tokens')
  const pieces = node.nodes('single').map((piece): readonly number[] | 'text' => {
    if (piece.has('Sequence')) {
      const id = piece.node('Sequence').string('id')
      if (id !== 'A') throw bad(piece.at('Sequence.id'), `is ${JSON.stringify(id)}; the template of a single text has only "A"`)
      return 'text'
    }
    const name = piece.node('SpecialToken').string('id')
    if (!specials.has(name)) throw bad(piece.at('SpecialToken.id'), `is ${JSON.stringify(name)}, which special_tokens does not have`)
    const special = new JsonNode(specials.get(name), specials.at(name))
    return special.array('ids').map((id, i) => {
      if (!Number.isInteger(id)) throw bad(`${special.at('ids')}[${i}]`, 'must be an integer')
      return id as number
    })
  })
  return (ids) => {
    const out: number[] = []
    for (const piece of pieces) for (const id of piece === 'text' ? ids : piece) out.push(id)
    return out
  }
}
