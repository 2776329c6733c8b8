import type { RequestOutput } from '@aphrodite/llm'
import type { ChunkWriter, MergedDelta, StreamUsage } from './delta-stream.ts'
import { type AnswerHead, totalUsage, usageBody } from './openai-completions.ts'
import { chatLogprobs, promptLogprobs, type TokenName } from './openai-logprobs.ts'
import type { ChatCompletion, ChatCompletionRequest } from './schemas/chat.ts'

/** How the choices of one request are written, whole or in chunks. */
export interface ChatForm {
  readonly body: ChatCompletionRequest
  readonly promptTokenIds: readonly number[]
  readonly name: TokenName
}

/** The whole answer. */
export function chatCompletion({ body, promptTokenIds, name }: ChatForm, head: AnswerHead, result: RequestOutput): ChatCompletion {
  return {
    ...head,
    object: 'chat.completion',
    choices: [...result.outputs]
      .sort((a, b) => a.index - b.index)
      .map((output) => ({
        index: output.index,
        message: { role: 'assistant', content: output.text, refusal: null },
        logprobs: body.logprobs ? chatLogprobs(output.logprobs ?? [], name) : null,
        finish_reason: output.finishReason,
        stop_reason: output.stopReason,
        ...(body.return_token_ids && { token_ids: [...output.tokenIds] }),
      })),
    usage: totalUsage([{ promptTokenIds }], [result]),
    ...(body.prompt_logprobs !== undefined && { prompt_logprobs: result.promptLogprobs && promptLogprobs(result.promptLogprobs) }),
    ...(body.return_token_ids && { prompt_token_ids: [...promptTokenIds] }),
  }
}

/** The answer in chunks. What is the same in every chunk is written down once. */
export class ChatChunks implements ChunkWriter {
  readonly #form: ChatForm
  readonly #head: string
  readonly #usage: 'none' | 'last' | 'every'
  readonly #begun = new Set<number>()

  constructor(form: ChatForm, head: AnswerHead) {
    this.#form = form
    const { include_usage, continuous_usage_stats } = form.body.stream_options ?? {}
    this.#usage = continuous_usage_stats ? 'every' : include_usage ? 'last' : 'none'
    const { id, created, model } = head
    this.#head = `data: ${JSON.stringify({ id, object: 'chat.completion.chunk', created, model }).slice(0, -1)},"choices":[`
  }

  chunk(choice: number, delta: MergedDelta, usage: StreamUsage): string {
    const { body, name } = this.#form
    let text = this.#role(choice, usage)
    const logprobs = body.logprobs && delta.logprobs ? JSON.stringify(chatLogprobs(delta.logprobs, name)) : 'null'
    const ids = body.return_token_ids ? `,"token_ids":${JSON.stringify(delta.tokenIds)}` : ''
    // Half a character has come: it is said when it is whole.
    if (delta.text === '' && delta.finishReason === null && logprobs === 'null' && ids === '') return text
    const content = delta.text === '' ? '{}' : `{"content":${JSON.stringify(delta.text)}}`
    const finish = delta.finishReason === null ? 'null' : `"${delta.finishReason}","stop_reason":${JSON.stringify(delta.stopReason)}`
    text += `${this.#head}{"index":${choice},"delta":${content},"logprobs":${logprobs},"finish_reason":${finish}${ids}}]${this.#tail(usage)}`
    return text
  }

  last(usage: StreamUsage): string {
    return this.#usage === 'none' ? '' : `${this.#head}],"usage":${JSON.stringify(usageBody(usage))}}\n\n`
  }

  /** A choice's first chunk says who speaks. */
  #role(choice: number, usage: StreamUsage): string {
    if (this.#begun.has(choice)) return ''
    this.#begun.add(choice)
    const { body, promptTokenIds } = this.#form
    const ids = body.return_token_ids && this.#begun.size === 1 ? `,"prompt_token_ids":${JSON.stringify(promptTokenIds)}` : ''
    return `${this.#head}{"index":${choice},"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]${ids}${this.#tail(usage)}`
  }

  #tail(usage: StreamUsage): string {
    if (this.#usage === 'none') return '}\n\n'
    return `,"usage":${this.#usage === 'every' ? JSON.stringify(usageBody(usage)) : 'null'}}\n\n`
  }
}
