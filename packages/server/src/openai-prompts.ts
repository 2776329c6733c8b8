import type { ChatMessage, LanguageModel, Prompt } from '@aphrodite/llm'
import { invalidValue, toApiError, unsupported } from './api-error.ts'
import type { ResolvedServerOptions } from './options.ts'
import type { ChatMessageInput } from './schemas/chat.ts'
import type { CompletionRequest } from './schemas/completions.ts'

/** A prompt as ids, and its text where the request had one. */
export interface TokenizedPrompt {
  readonly text: string | null
  readonly promptTokenIds: readonly number[]
}

/** The ids of a prompt, checked by the model; what is wrong with it is said of `param`. */
export function tokenize(llm: LanguageModel, prompt: Prompt, param: string): readonly number[] {
  try {
    return llm.tokenize(prompt)
  } catch (error) {
    throw toApiError(error, param)
  }
}

/** The one or more prompts of a completion request, in order. */
export function completionPrompts(body: CompletionRequest, llm: LanguageModel): TokenizedPrompt[] {
  const { prompt } = body
  const list =
    typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt as string | number[]] : (prompt as (string | number[])[])
  return list.map((one) => {
    if (typeof one !== 'string') return { text: null, promptTokenIds: tokenize(llm, { promptTokenIds: one }, 'prompt') }
    const addSpecialTokens = body.add_special_tokens
    const asked = { prompt: one, ...(addSpecialTokens !== undefined && { addSpecialTokens }) }
    return { text: one, promptTokenIds: tokenize(llm, asked, 'prompt') }
  })
}

export interface Conversation {
  readonly messages: readonly ChatMessageInput[]
  readonly tools?: readonly unknown[]
  readonly tool_choice?: string | { readonly type: string }
  readonly add_generation_prompt?: boolean
  readonly continue_final_message?: boolean
  readonly add_special_tokens?: boolean
  readonly chat_template?: string
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>>
}

/** Variables that the request sets by its own fields. */
const OWN_VARIABLES: ReadonlySet<string> = new Set([
  'messages',
  'tools',
  'add_generation_prompt',
  'continue_final_message',
  'chat_template',
  'tokenize',
])

/** A conversation as the model's prompt. */
export function chatPrompt(body: Conversation, options: ResolvedServerOptions): Prompt {
  const choice = body.tool_choice
  if (choice !== undefined && choice !== 'auto' && choice !== 'none') {
    throw unsupported('tool_choice', 'tool_choice can only be "auto" or "none": this version cannot force a call.')
  }
  if (body.add_special_tokens) {
    throw unsupported('add_special_tokens', 'add_special_tokens cannot be true here: the chat template writes special tokens itself.')
  }
  if (body.chat_template !== undefined && !options.trustRequestChatTemplate) {
    throw unsupported(
      'chat_template',
      'This server does not run chat templates from requests. Leave chat_template out, or start the server with trustRequestChatTemplate.',
    )
  }
  if (body.continue_final_message && (body.add_generation_prompt ?? true)) {
    throw invalidValue('continue_final_message', 'continue_final_message needs add_generation_prompt to be false.')
  }
  const own = Object.keys(body.chat_template_kwargs ?? {}).find((key) => OWN_VARIABLES.has(key))
  if (own !== undefined)
    throw invalidValue('chat_template_kwargs', `chat_template_kwargs has ${own}, which is a field of the request itself.`)
  const tools = choice === 'none' ? undefined : body.tools
  return {
    messages: body.messages.map(chatMessage),
    ...(tools !== undefined && tools.length > 0 && { tools }),
    addGenerationPrompt: body.add_generation_prompt ?? true,
    continueFinalMessage: body.continue_final_message ?? false,
    ...(body.chat_template_kwargs !== undefined && { chatTemplateKwargs: body.chat_template_kwargs }),
    ...(body.chat_template !== undefined && { chatTemplate: body.chat_template }),
  }
}

/**
 * A message as templates want it: content as text, the arguments of tool calls as objects. `developer` is what newer
 * OpenAI models call `system`; templates know only the latter.
 */
function chatMessage(message: ChatMessageInput, index: number): ChatMessage {
  const { role, content, tool_calls, ...rest } = message
  return {
    ...rest,
    role: role === 'developer' ? 'system' : role,
    ...(content !== undefined && { content: typeof content === 'string' || content === null ? content : joinParts(content, index) }),
    ...(tool_calls &&
      tool_calls.length > 0 && { tool_calls: tool_calls.map((call, i) => ({ ...call, function: parsedCall(call.function, index, i) })) }),
  }
}

function joinParts(parts: readonly { readonly type: string; readonly text?: string }[], message: number): string {
  return parts
    .map(({ type, text }, i) => {
      const at = `messages[${message}].content[${i}]`
      if (type !== 'text')
        throw unsupported('messages', `${at} is of type ${JSON.stringify(type.slice(0, 60))}; this server takes only text.`)
      if (text === undefined) throw invalidValue('messages', `${at}.text is missing.`)
      return text
    })
    .join('\n')
}

function parsedCall(call: { readonly name: string; readonly arguments: unknown }, message: number, index: number) {
  if (typeof call.arguments !== 'string') return call
  try {
    return { ...call, arguments: call.arguments.trim() === '' ? {} : (JSON.parse(call.arguments) as unknown) }
  } catch {
    throw invalidValue('messages', `messages[${message}].tool_calls[${index}].function.arguments is not JSON.`)
  }
}
