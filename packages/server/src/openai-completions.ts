import type { LanguageModel, RequestOutput, TokenLogprobs } from '@aphrodite/llm'
import type { ChunkWriter, Job, MergedDelta, StreamUsage } from './delta-stream.ts'
import { completionLogprobs, echoedTokens, promptLogprobs, type TokenName } from './openai-logprobs.ts'
import type { TokenizedPrompt } from './openai-prompts.ts'
import type { Usage } from './schemas/answer.ts'
import type { Completion, CompletionChoice, CompletionRequest } from './schemas/completions.ts'

/** What every answer of one request begins with. */
export interface AnswerHead {
  readonly id: string
  readonly created: number
  readonly model: string
}

export const usageBody = ({ promptTokens, completionTokens, cachedTokens }: StreamUsage): Usage => ({
  prompt_tokens: promptTokens,
  completion_tokens: completionTokens,
  total_tokens: promptTokens + completionTokens,
  prompt_tokens_details: { cached_tokens: cachedTokens },
})

export function totalUsage(prompts: readonly { readonly promptTokenIds: readonly number[] }[], results: readonly RequestOutput[]): Usage {
  const usage: StreamUsage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }
  for (const prompt of prompts) usage.promptTokens += prompt.promptTokenIds.length
  for (const result of results) {
    usage.cachedTokens += result.cachedTokens
    for (const output of result.outputs) usage.completionTokens += output.tokenIds.length
  }
  return usageBody(usage)
}

/** How the choices of one request are written, whole or in chunks. */
export interface CompletionForm {
  readonly llm: LanguageModel
  readonly body: CompletionRequest
  readonly prompts: readonly TokenizedPrompt[]
  readonly n: number
  readonly name: TokenName
}

/** The prompt's text for `echo`. */
function promptText({ llm, prompts }: CompletionForm, index: number): string {
  const { text, promptTokenIds } = prompts[index]!
  return text ?? (llm.hasTokenizer ? llm.detokenize(promptTokenIds, { skipSpecialTokens: false }) : '')
}

/** The whole answer. */
export function completion(form: CompletionForm, head: AnswerHead, results: readonly RequestOutput[]): Completion {
  const { body, llm, prompts, n, name } = form
  const choices: CompletionChoice[] = []
  for (const [p, result] of results.entries()) {
    for (const output of result.outputs) {
      const echoed = body.echo ? echoedTokens(llm, prompts[p]!.promptTokenIds, result.promptLogprobs) : []

      choices.push({
        index: p * n + output.index,
        text: body.echo ? promptText(form, p) + output.text : output.text,
        logprobs: body.logprobs === undefined ? null : completionLogprobs([...echoed, ...(output.logprobs ?? [])], name, 0).logprobs,
        finish_reason: output.finishReason,
        stop_reason: output.stopReason,
        ...(body.prompt_logprobs !== undefined && { prompt_logprobs: result.promptLogprobs && promptLogprobs(result.promptLogprobs) }),
        ...(body.return_token_ids && {
          token_ids: [...output.tokenIds],
          prompt_token_ids: [...prompts[p]!.promptTokenIds],
        }),
      })
    }
  }
  choices.sort((a, b) => a.index - b.index)
  return { ...head, object: 'text_completion', choices, usage: totalUsage(prompts, results) }
}

/** The answer in chunks. What is the same in every chunk is written down once. */
export class CompletionChunks implements ChunkWriter {
  readonly #form: CompletionForm
  readonly #head: string
  readonly #usage: 'none' | 'last' | 'every'
  readonly #promptLogprobs = new Map<number, readonly (TokenLogprobs | null)[] | null>()
  /** Where the next token of a choice begins in its text; the choices that have begun. */
  readonly #offsets = new Map<number, number>()

  constructor(form: CompletionForm, head: AnswerHead) {
    this.#form = form
    const { include_usage, continuous_usage_stats } = form.body.stream_options ?? {}
    this.#usage = continuous_usage_stats ? 'every' : include_usage ? 'last' : 'none'
    const { id, created, model } = head
    this.#head = `data: ${JSON.stringify({ id, object: 'text_completion', created, model }).slice(0, -1)},"choices":[`
  }

  begin(job: Job, delta: { readonly promptLogprobs?: readonly (TokenLogprobs | null)[] | null }): void {
    this.#promptLogprobs.set(job.offset, delta.promptLogprobs ?? null)
  }

  chunk(choice: number, delta: MergedDelta, usage: StreamUsage): string {
    const { body, llm, prompts, n, name } = this.#form
    const p = Math.floor(choice / n)
    const first = !this.#offsets.has(choice)
    const echo = first && body.echo === true
    const reason = delta.finishReason
    const text = echo ? promptText(this.#form, p) + delta.text : delta.text

    if (first) this.#offsets.set(choice, 0)
    let logprobs = 'null'
    if (body.logprobs !== undefined && (echo || delta.logprobs)) {
      const echoed = echo ? echoedTokens(llm, prompts[p]!.promptTokenIds, this.#promptLogprobs.get(p * n) ?? null) : []
      const written = completionLogprobs([...echoed, ...(delta.logprobs ?? [])], name, this.#offsets.get(choice)!)
      this.#offsets.set(choice, written.end)
      logprobs = JSON.stringify(written.logprobs)
    }
    const ids = body.return_token_ids ? this.#ids(first ? prompts[p]!.promptTokenIds : null, delta.tokenIds) : ''
    // Half a character has come: it is said when it is whole.
    if (text === '' && reason === null && logprobs === 'null' && ids === '') return ''
    const finish = reason === null ? 'null' : `"${reason}"`
    const stop = JSON.stringify(delta.stopReason)
    return `${this.#head}{"index":${choice},"text":${JSON.stringify(text)},"logprobs":${logprobs},"finish_reason":${finish},"stop_reason":${stop}${ids}}]${this.#tail(usage)}`
  }

  last(usage: StreamUsage): string {
    return this.#usage === 'none' ? '' : `${this.#head}],"usage":${JSON.stringify(usageBody(usage))}}\n\n`
  }

  #ids(prompt: readonly number[] | null, ids: readonly number[]): string {
    return `,"token_ids":${JSON.stringify(ids)}${prompt ? `,"prompt_token_ids":${JSON.stringify(prompt)}` : ''}`
  }

  #tail(usage: StreamUsage): string {
    if (this.#usage === 'none') return '}\n\n'
    return `,"usage":${this.#usage === 'every' ? JSON.stringify(usageBody(usage)) : 'null'}}\n\n`
  }
}
