import { AphroditeError, didYouMean } from '@aphrodite/tensor'
import type { ChatTemplate, Tokenizer } from '@aphrodite/tokenizer'
import { llmError } from './errors.ts'
import type { Prompt } from './types.ts'

/** What turns a prompt of any kind into ids: the tokenizer, the template, and the limits that ids must keep. */
export interface PromptContext {
  readonly tokenizer: Tokenizer | null
  readonly chatTemplate: ChatTemplate | null
  readonly vocabSize: number
  readonly maxModelLen: number
  /** Tokens that must be left for an answer: 1, or 0 where none is made. */
  readonly room: 0 | 1
}

export interface EncodedPrompt {
  /** The text, where the prompt was one or became one. */
  readonly text: string | null
  readonly ids: readonly number[]
}

const KEYS: Readonly<Record<string, readonly string[]>> = {
  prompt: ['prompt', 'addSpecialTokens'],
  promptTokenIds: ['promptTokenIds'],
  messages: ['messages', 'tools', 'addGenerationPrompt', 'continueFinalMessage', 'chatTemplateKwargs', 'chatTemplate'],
}

/** Throws BAD_PROMPT, NO_TOKENIZER, PROMPT_TOO_LONG, and what template and tokenizer throw. */
export function encodePrompt(prompt: Prompt, context: PromptContext): EncodedPrompt {
  const encoded = toIds(prompt, context)
  const { ids } = encoded
  if (ids.length === 0) throw llmError('BAD_PROMPT', 'the prompt is empty: it needs at least one token')
  if (ids.length > context.maxModelLen - context.room) throw tooLong(String(ids.length), context)
  return encoded
}

function tooLong(tokens: string, { maxModelLen, room }: PromptContext, options?: ErrorOptions): AphroditeError {
  const answer = room ? ', of which the answer needs one' : ''
  return llmError(
    'PROMPT_TOO_LONG',
    `the prompt has ${tokens} tokens, and the model's context ${maxModelLen}${answer}. Shorten the prompt, or raise maxModelLen if the model allows it.`,
    options,
  )
}

function toIds(prompt: Prompt, context: PromptContext): EncodedPrompt {
  if (typeof prompt === 'string') return encodeText(prompt, true, context)
  if (typeof prompt !== 'object' || prompt === null)
    throw llmError('BAD_PROMPT', `a prompt should be a text, { prompt }, { promptTokenIds } or { messages }, is ${typeof prompt}`)
  const kind = Object.keys(KEYS).find((k) => k in prompt)
  if (kind === undefined)
    throw llmError(
      'BAD_PROMPT',
      `a prompt should have one of prompt, promptTokenIds and messages; it has ${Object.keys(prompt).join(', ') || 'nothing'}`,
    )
  for (const key of Object.keys(prompt)) {
    if (!KEYS[kind]!.includes(key)) throw llmError('BAD_PROMPT', `a prompt with ${kind} has no "${key}".${didYouMean(key, KEYS[kind]!)}`)
  }
  if ('promptTokenIds' in prompt) return { text: null, ids: checkIds(prompt.promptTokenIds, context.vocabSize) }
  if ('prompt' in prompt) return encodeText(prompt.prompt, prompt.addSpecialTokens ?? true, context)
  return encodeChat(prompt, context)
}

function encodeText(text: string, addSpecialTokens: boolean, context: PromptContext): EncodedPrompt {
  if (typeof text !== 'string') throw llmError('BAD_PROMPT', `prompt should be a text, is ${typeof text}`)
  if (!context.tokenizer) throw llmError('NO_TOKENIZER', 'this model was started without a tokenizer: give promptTokenIds')
  return { text, ids: encodeBounded(context.tokenizer, text, addSpecialTokens, context) }
}

function encodeChat(prompt: Extract<Prompt, { messages: unknown }>, context: PromptContext): EncodedPrompt {
  const { tokenizer, chatTemplate } = context
  if (!tokenizer) throw llmError('NO_TOKENIZER', 'this model was started without a tokenizer: give promptTokenIds')
  if (!chatTemplate && prompt.chatTemplate === undefined)
    throw llmError('NO_TOKENIZER', 'this model has no chat template: give one with chatTemplate, or a prompt instead of messages')
  const template = prompt.chatTemplate !== undefined ? tokenizer.chatTemplate(prompt.chatTemplate) : chatTemplate!
  const text = template.render(prompt.messages, {
    addGenerationPrompt: prompt.addGenerationPrompt ?? !prompt.continueFinalMessage,
    continueFinalMessage: prompt.continueFinalMessage ?? false,
    ...(prompt.tools && { tools: prompt.tools }),
    ...(prompt.chatTemplateKwargs && { kwargs: prompt.chatTemplateKwargs }),
  })
  // A template writes its special tokens itself.
  return { text, ids: encodeBounded(tokenizer, text, false, context) }
}

/** Megabytes of text are not encoded to find that they do not fit: that would take seconds of this thread. */
function encodeBounded(tokenizer: Tokenizer, text: string, addSpecialTokens: boolean, context: PromptContext): readonly number[] {
  const { maxModelLen } = context
  try {
    return tokenizer.encode(text, { addSpecialTokens, maxTokens: maxModelLen })
  } catch (error) {
    if (!(error instanceof AphroditeError && error.code === 'TOO_MANY_TOKENS')) throw error
    throw tooLong(`more than ${maxModelLen}`, context, { cause: error })
  }
}

function checkIds(ids: readonly number[], vocabSize: number): readonly number[] {
  if (!Array.isArray(ids)) throw llmError('BAD_PROMPT', `promptTokenIds should be a list of token ids, is ${typeof ids}`)
  for (const [i, id] of ids.entries()) {
    if (!Number.isSafeInteger(id) || id < 0 || id >= vocabSize)
      throw llmError('BAD_PROMPT', `promptTokenIds[${i}] is ${id}; the model's vocabulary has the ids 0 to ${vocabSize - 1}`)
  }
  return ids
}
