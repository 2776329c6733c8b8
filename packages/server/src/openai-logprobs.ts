import type { LanguageModel, TokenLogprobs } from '@aphrodite/llm'
import type { PromptLogprobs } from './schemas/answer.ts'
import type { ChatLogprobs } from './schemas/chat.ts'
import type { CompletionLogprobs } from './schemas/completions.ts'

interface Token {
  readonly tokenId: number
  readonly token: string
}
/** How a token is written: its text, or its id, which is never ambiguous. */
export type TokenName = (token: Token) => string
export const tokenName = (asIds: boolean | undefined): TokenName => (asIds ? ({ tokenId }) => `token_id:${tokenId}` : ({ token }) => token)

/** JSON has no infinity, and a log-probability may be one: OpenAI writes -9999. */
const finite = (logprob: number): number => Math.max(logprob, -9999)

/** Log-probabilities of /v1/chat/completions. */
export const chatLogprobs = (tokens: readonly TokenLogprobs[], name: TokenName): ChatLogprobs => ({
  content: tokens.map((token) => ({
    token: name(token),
    logprob: finite(token.logprob),
    bytes: [...token.bytes],
    top_logprobs: token.top.map((top) => ({ token: name(top), logprob: finite(top.logprob), bytes: [...top.bytes] })),
  })),
})

/**
 * Log-probabilities of /v1/completions. `top_logprobs` has the likeliest tokens and the chosen one; where two have the same
 * text, the likelier stays. Offsets count on from `offset`, in code points, over the tokens' own texts.
 */
export function completionLogprobs(
  tokens: readonly (TokenLogprobs | { readonly tokenId: number; readonly token: string; readonly logprob: null })[],
  name: TokenName,
  offset: number,
): { logprobs: CompletionLogprobs; end: number } {
  const logprobs: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }
  let end = offset
  for (const token of tokens) {
    logprobs.tokens.push(name(token))
    logprobs.text_offset.push(end)
    end += codePoints(token.token)
    if (token.logprob === null) {
      logprobs.token_logprobs.push(null)
      logprobs.top_logprobs.push(null)
      continue
    }
    logprobs.token_logprobs.push(finite(token.logprob))
    const top: [string, number][] = []
    for (const one of [...token.top, token]) top.push([name(one), finite(one.logprob)])
    top.sort((a, b) => a[1] - b[1])
    // Sorted so that the likelier overwrites; written so that the likeliest comes first.
    const byText = new Map(top)
    logprobs.top_logprobs.push(Object.fromEntries([...byText].sort((a, b) => b[1] - a[1])))
  }
  return { logprobs, end }
}

/** vLLM's `prompt_logprobs`: a map from token id a position, the first null. */
export const promptLogprobs = (positions: readonly (TokenLogprobs | null)[]): PromptLogprobs =>
  positions.map((position) => {
    if (!position) return null
    const entries: Record<string, { logprob: number; rank: number | null; decoded_token: string }> = {}
    for (const [i, top] of position.top.entries()) {
      entries[top.tokenId] = { logprob: finite(top.logprob), rank: i + 1, decoded_token: top.token }
    }
    entries[position.tokenId] = { logprob: finite(position.logprob), rank: position.rank, decoded_token: position.token }
    return entries
  })

/** The prompt's tokens as completions write them with `echo`: the first has no log-probability. */
export const echoedTokens = (llm: LanguageModel, ids: readonly number[], positions: readonly (TokenLogprobs | null)[] | null) =>
  ids.map((tokenId, i) => positions?.[i] ?? { tokenId, token: llm.hasTokenizer ? llm.tokenText(tokenId).token : '', logprob: null })

const codePoints = (text: string): number => {
  let count = text.length
  for (let i = 0; i < text.length; i++) {
    // A pair of surrogates is one character.
    if ((text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) count--
  }
  return count
}
