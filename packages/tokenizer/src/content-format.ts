import type { Template } from '@huggingface/jinja'

/** How a template reads `message.content`: as text, or as OpenAI's list of parts. */
export type ContentFormat = 'string' | 'openai'

interface Node {
  readonly type: string
  readonly [key: string]: unknown
}

export interface ContentReading {
  /** `openai` when the template loops over some message's content. */
  readonly format: ContentFormat
  /** Whether it asks if a content is a string: then it takes both. */
  readonly takesBoth: boolean
}

/** Looks at the template's syntax tree for a loop over `….content`, or over a variable or macro argument that stands for it. */
export function contentReading(program: Template['parsed']): ContentReading {
  const nodes = [...walk(program)]
  const aliases = new Set<string>()
  const isContent = (value: unknown): boolean => {
    const node = asNode(value)
    if (!node) return false
    if (node.type === 'Identifier') return aliases.has(String(node['value']))
    if (node.type === 'FilterExpression') return isContent(node['operand'])
    if (node.type !== 'MemberExpression') return false
    const property = asNode(node['property'])
    return (
      property !== undefined && (property.type === 'Identifier' || property.type === 'StringLiteral') && property['value'] === 'content'
    )
  }
  // An alias of an alias needs another round.
  for (let before = -1; before !== aliases.size; ) {
    before = aliases.size
    for (const node of nodes) {
      if (node.type === 'Set' && isContent(node['value'])) addName(node['assignee'], aliases)
      if (node.type === 'CallExpression') addArguments(node, nodes, isContent, aliases)
    }
  }
  const loops = nodes.some((node) => node.type === 'For' && isContent(node['iterable']))
  const takesBoth = nodes.some(
    (node) => node.type === 'TestExpression' && asNode(node['test'])?.['value'] === 'string' && isContent(node['operand']),
  )
  return { format: loops ? 'openai' : 'string', takesBoth }
}

/** A macro called with a content: its parameter is one inside. */
function addArguments(call: Node, nodes: readonly Node[], isContent: (value: unknown) => boolean, aliases: Set<string>): void {
  const name = asNode(call['callee'])?.['value']
  const macro = nodes.find((node) => node.type === 'Macro' && asNode(node['name'])?.['value'] === name)
  if (!macro) return
  const given = call['args'] as unknown[]
  const parameters = macro['args'] as unknown[]
  for (const [i, argument] of given.entries()) if (isContent(argument)) addName(parameters[i], aliases)
}

function addName(value: unknown, names: Set<string>): void {
  const node = asNode(value)
  if (node?.type === 'Identifier') names.add(String(node['value']))
  if (node?.type === 'KeywordArgumentExpression') addName(node['key'], names)
}

function asNode(value: unknown): Node | undefined {
  return value !== null && typeof value === 'object' && typeof (value as Node).type === 'string' ? (value as Node) : undefined
}

function* walk(value: unknown): Generator<Node> {
  if (value === null || typeof value !== 'object') return
  if (value instanceof Map) {
    for (const [key, entry] of value) {
      yield* walk(key)
      yield* walk(entry)
    }
    return
  }
  const node = asNode(value)
  if (node) yield node
  for (const child of Object.values(value)) yield* walk(child)
}
