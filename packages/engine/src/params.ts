/** How a request's tokens are chosen. Per request, never per batch. Ranges are checked by `resolveSamplingParams`. */
export interface SamplingParams {
  /** 0 takes the most likely token; otherwise logits are divided by it. [0, 100] */
  readonly temperature: number
  /** Only the k most likely tokens; 0: all. */
  readonly topK: number
  /** Only the most likely tokens that together reach this probability; 1: all. (0, 1] */
  readonly topP: number
  /** Only tokens at least this fraction as likely as the most likely one; 0: all. [0, 1] */
  readonly minP: number
  /** Divides (or multiplies, below zero) the logits of tokens already in prompt or output; 1: off. (0, 2] and beyond */
  readonly repetitionPenalty: number
  /** Taken from the logit of a token that the output has; [-2, 2] */
  readonly presencePenalty: number
  /** Taken from the logit of a token as often as the output has it; [-2, 2] */
  readonly frequencyPenalty: number
  /** Same seed, same prompt, same parameters: same tokens, whatever else is running. null: a random one. */
  readonly seed: number | null
  /** Added to the logits of token ids. [-100, 100] */
  readonly logitBias: Readonly<Record<number, number>>
  /** Text that ends the output; it is not part of it unless includeStopStrInOutput. */
  readonly stop: readonly string[]
  /** Token ids that end the output, beside the model's own end tokens. */
  readonly stopTokenIds: readonly number[]
  readonly includeStopStrInOutput: boolean
  /** The model's end tokens do not end the output. */
  readonly ignoreEos: boolean
  /** No end token and no stop id before so many tokens. */
  readonly minTokens: number
  /** At most so many tokens; null: until the model's context is full. */
  readonly maxTokens: number | null
  /** How many answers to one prompt; they share its cache. */
  readonly n: number
  /** How many of the likeliest tokens to report beside the chosen one, null: none at all. [0, 20] */
  readonly logprobs: number | null
  /** The same for the tokens of the prompt. */
  readonly promptLogprobs: number | null
  /** Leave special tokens out of the text. */
  readonly skipSpecialTokens: boolean
}

export const DEFAULT_SAMPLING_PARAMS: SamplingParams = Object.freeze({
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: null,
  logitBias: {},
  stop: [],
  stopTokenIds: [],
  includeStopStrInOutput: false,
  ignoreEos: false,
  minTokens: 0,
  maxTokens: null,
  n: 1,
  logprobs: null,
  promptLogprobs: null,
  skipSpecialTokens: true,
})
