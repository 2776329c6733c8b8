import { bad } from './json.ts'

/** The named special tokens, as chat templates know them. */
export const SPECIAL_TOKEN_NAMES = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'] as const
export type SpecialTokenName = (typeof SPECIAL_TOKEN_NAMES)[number]

/** What a tokenizer_config.json says that matters here. */
export interface TokenizerConfig {
  /** `bos_token` to `<s>`, and any other name ending in `_token`, such as `image_token`. */
  readonly specialTokens: ReadonlyMap<string, string>
  readonly additionalSpecialTokens: readonly string[]
  readonly cleanUpTokenizationSpaces: boolean
  /** Longest input the model was made for, in tokens; undefined when the file gives none. */
  readonly modelMaxLength: number | undefined
  /** The `chat_template` field as it is. */
  readonly chatTemplate: unknown
}

/**
 * Reads the parsed content of tokenizer_config.json; `undefined` means that there is none.
 * @param specialTokensMap the parsed special_tokens_map.json of older models
 */
export function readTokenizerConfig(config: unknown, specialTokensMap?: unknown): TokenizerConfig {
  const fields = { ...record(specialTokensMap, 'special_tokens_map.json'), ...record(config, 'tokenizer_config.json') }
  const specialTokens = new Map<string, string>()
  for (const [name, value] of Object.entries(fields)) {
    if (!name.endsWith('_token') || name.startsWith('add_')) continue
    const content = tokenContent(value)
    if (content !== undefined) specialTokens.set(name, content)
  }
  const extra = fields['additional_special_tokens'] ?? fields['extra_special_tokens']
  const additional = Array.isArray(extra) ? extra : []
  if (extra !== null && typeof extra === 'object' && !Array.isArray(extra))
    for (const [name, value] of Object.entries(extra)) {
      const content = tokenContent(value)
      if (content !== undefined) specialTokens.set(name, content)
    }
  const length = fields['model_max_length']
  return {
    specialTokens,
    additionalSpecialTokens: additional.map(tokenContent).filter((token) => token !== undefined),
    cleanUpTokenizationSpaces: fields['clean_up_tokenization_spaces'] === true,
    // Hugging Face writes 10^30 for "unknown".
    modelMaxLength: typeof length === 'number' && length > 0 && length < 1e15 ? length : undefined,
    chatTemplate: fields['chat_template'],
  }
}

function record(value: unknown, name: string): Record<string, unknown> {
  if (value === undefined || value === null) return {}
  if (typeof value !== 'object' || Array.isArray(value)) throw bad(name, 'must hold a JSON object')
  return value as Record<string, unknown>
}

/** A token is a string or an object with `content`. */
function tokenContent(value: unknown): string | undefined {
  if (typeof value === 'string') return value === '' ? undefined : value
  const content = value !== null && typeof value === 'object' ? (value as { content?: unknown }).content : undefined
  return typeof content === 'string' && content !== '' ? content : undefined
}
