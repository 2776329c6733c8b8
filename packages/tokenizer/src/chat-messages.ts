import type { ContentReading } from './content-format.ts'
import { tokenizerError } from './errors.ts'

/** A message as OpenAI's chat API has it; further fields reach the template as they are. */
export interface ChatTemplateMessage {
  readonly role: string
  readonly content?: string | readonly { readonly type: string; readonly text?: string }[] | null
  readonly name?: string
  readonly tool_calls?: readonly unknown[]
  readonly tool_call_id?: string
}

type Fields = Record<string, unknown>

/** Messages in the form that the template reads. */
export function templateMessages(messages: readonly ChatTemplateMessage[], reading: ContentReading): Fields[] {
  return messages.map((message, index) => {
    if (message === null || typeof message !== 'object' || typeof message.role !== 'string')
      throw tokenizerError(
        'CHAT_TEMPLATE',
        `messages[${index}] must be an object with a role, such as { "role": "user", "content": "Hello" }.`,
      )
    const fields = withoutUndefined(message) as Fields
    const { content } = fields
    if (Array.isArray(content)) {
      if (reading.format === 'string') fields['content'] = joinedText(content, index)
    } else if (typeof content === 'string' && reading.format === 'openai' && !reading.takesBoth)
      fields['content'] = [{ type: 'text', text: content }]
    if (Array.isArray(fields['tool_calls'])) fields['tool_calls'] = fields['tool_calls'].map(withParsedArguments)
    return fields
  })
}

function joinedText(parts: readonly unknown[], index: number): string {
  return parts
    .map((part) => {
      if (typeof part === 'string') return part
      const text = part !== null && typeof part === 'object' ? (part as { text?: unknown }).text : undefined
      if (typeof text !== 'string') {
        const type = part !== null && typeof part === 'object' ? JSON.stringify((part as { type?: unknown }).type) : typeof part
        throw tokenizerError(
          'CHAT_TEMPLATE',
          `messages[${index}].content has a part of type ${type}; the model's chat template takes only text.`,
        )
      }
      return text
    })
    .join('\n')
}

/** OpenAI gives a call's arguments as JSON text; templates want the object. */
function withParsedArguments(call: unknown): unknown {
  const fields = call as { function?: { arguments?: unknown } } | null
  const text = fields?.function?.arguments
  if (typeof text !== 'string') return call
  try {
    const parsed: unknown = text.trim() === '' ? {} : JSON.parse(text)
    return parsed !== null && typeof parsed === 'object' ? { ...fields, function: { ...fields?.function, arguments: parsed } } : call
  } catch {
    return call // what a model wrote need not be JSON
  }
}

/** A deep copy of data without fields that are undefined, which Jinja would take for defined. */
export function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined)
  if (value === null || typeof value !== 'object') return value
  const out: Fields = {}
  for (const [key, field] of Object.entries(value)) if (field !== undefined) out[key] = withoutUndefined(field)
  return out
}
