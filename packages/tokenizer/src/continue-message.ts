import { tokenizerError } from './errors.ts'

/** Stands at the end of the message that is continued while the template runs; its space shows whether the template trims. */
const MARK = 'APHRODITE_CONTINUES_HERE '

/** Puts the mark at the end of the last message's text, in place. Returns that text. */
export function markFinalMessage(messages: Record<string, unknown>[]): string {
  const last = messages.at(-1)!
  const { content } = last
  if (typeof content === 'string') {
    last['content'] = content + MARK
    return content
  }
  const part = Array.isArray(content)
    ? content.findLast((entry) => typeof (entry as { text?: unknown } | null)?.text === 'string')
    : undefined
  if (!part) throw tokenizerError('CHAT_TEMPLATE', 'continueFinalMessage: the last message has no text to continue.')
  const { text } = part as { text: string }
  part.text = text + MARK
  return text
}

/** The rendered text up to the mark. */
export function continuedText(rendered: string, final: string): string {
  const at = rendered.lastIndexOf(MARK.trim())
  if (at < 0 || !rendered.includes(final.trim()))
    throw tokenizerError(
      'CHAT_TEMPLATE',
      "continueFinalMessage: the last message does not appear in the prompt as it is; the model's chat template changes it.",
    )
  const before = rendered.slice(0, at)
  // Where the template trims a message, the text to go on from is trimmed too.
  return rendered.startsWith(MARK, at) ? before : before.trimEnd()
}
