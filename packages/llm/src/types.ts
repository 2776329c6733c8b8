import type { EngineStats, FinishReason, MemoryLedger, SamplingParams } from '@aphrodite/engine'
import type { RankPlace } from './ranks/place.ts'

export interface LLMOptions {
  /** A folder with config.json and weights, or a Hugging Face hub id. */
  readonly model: string
  readonly revision?: string
  /** Another folder or hub id for tokenizer and chat template. */
  readonly tokenizer?: string
  readonly skipTokenizerInit?: boolean
  /** A path to a Jinja file, or the template itself. */
  readonly chatTemplate?: string
  /** `auto`: the GPU where there is one. `cuda:1`: the second GPU. */
  readonly device?: 'auto' | 'cpu' | 'cuda' | `cuda:${number}`
  readonly dtype?: 'auto' | 'float32' | 'bfloat16' | 'float16'
  /**
   * Of keys and values in the cache; `auto`: dtype. `fp8` is `fp8_e4m3`: half the bytes of bf16, so twice the tokens, and less exact.
   */
  readonly kvCacheDtype?: 'auto' | 'f32' | 'bf16' | 'f16' | 'fp8' | 'fp8_e4m3' | 'fp8_e5m2'
  readonly loadFormat?: 'auto' | 'safetensors' | 'dummy'
  readonly quantization?: string
  /** Ranks that share the model: processes of this machine that are started with it, unless `rank` says otherwise. */
  readonly tensorParallelSize?: number
  /** Where a launcher starts the ranks: which of them this process is, of `rankFromEnvironment(process.env)`. */
  readonly rank?: RankPlace
  /** Seconds that a rank waits for the others before all give up. */
  readonly rankTimeout?: number
  readonly maxModelLen?: number
  readonly maxNumSeqs?: number
  readonly maxNumBatchedTokens?: number
  readonly enablePrefixCaching?: boolean
  /** Bytes for the KV cache; unset: what memoryFraction or gpuMemoryUtilization leaves. */
  readonly kvCacheBytes?: number
  /** On the CPU: of the machine's free memory, for workspace and cache. (0, 1] */
  readonly memoryFraction?: number
  /** On a GPU: of its whole memory, for weights, workspace and cache together. (0, 1] */
  readonly gpuMemoryUtilization?: number
  readonly threads?: number
  /** Ties the kernel threads to cores. */
  readonly pinThreads?: boolean
  /** On a GPU: decode steps are captured before the first request, not when they are met. */
  readonly captureAtStart?: boolean
  /** Packages, paths or URLs of modules that bring models: by what their package.json says, or by registering or exporting them. */
  readonly plugins?: readonly string[]
  readonly seed?: number
  /** Progress for people: `weights: 1.2 of 2.4 GB`. */
  readonly onProgress?: (message: string) => void
}

export interface ChatMessage {
  readonly role: string
  readonly content?: string | readonly { readonly type: string; readonly text?: string }[] | null
  readonly name?: string
  readonly tool_calls?: readonly unknown[]
  readonly tool_call_id?: string
}

export type Prompt =
  | string
  | { readonly prompt: string; readonly addSpecialTokens?: boolean }
  | { readonly promptTokenIds: readonly number[] }
  | {
      readonly messages: readonly ChatMessage[]
      readonly tools?: readonly unknown[]
      readonly addGenerationPrompt?: boolean
      readonly continueFinalMessage?: boolean
      /** Further variables of the template, such as enable_thinking. */
      readonly chatTemplateKwargs?: Readonly<Record<string, unknown>>
      readonly chatTemplate?: string
    }

export interface RequestOptions {
  readonly signal?: AbortSignal
  readonly cacheSalt?: string
  readonly priority?: number
}

export interface TokenLogprobs {
  readonly tokenId: number
  /** The token's own text; bytes that are no character are replaced. */
  readonly token: string
  readonly bytes: readonly number[]
  readonly logprob: number
  readonly rank: number
  readonly top: readonly { readonly tokenId: number; readonly token: string; readonly bytes: readonly number[]; readonly logprob: number }[]
}

export interface CompletionOutput {
  readonly index: number
  readonly text: string
  readonly tokenIds: readonly number[]
  readonly finishReason: FinishReason
  /** The stop string or stop token id that ended it. */
  readonly stopReason: string | number | null
  readonly logprobs: readonly TokenLogprobs[] | null
}

export interface RequestOutput {
  readonly prompt: string | null
  readonly promptTokenIds: readonly number[]
  readonly promptLogprobs: readonly (TokenLogprobs | null)[] | null
  readonly cachedTokens: number
  readonly outputs: readonly CompletionOutput[]
}

/** What came since the last one, of one of the n answers. */
export interface CompletionDelta {
  readonly index: number
  readonly text: string
  readonly tokenIds: readonly number[]
  readonly logprobs: readonly TokenLogprobs[] | null
  readonly finishReason: FinishReason | null
  readonly stopReason: string | number | null
  /** With the first delta of a request. */
  readonly promptTokenIds?: readonly number[]
  readonly promptLogprobs?: readonly (TokenLogprobs | null)[] | null
  readonly cachedTokens?: number
}

export interface LLMInfo {
  readonly model: string
  readonly architecture: string
  /** `cpu (AMD EPYC, avx512-bf16, 2 threads)`, `cuda:0 (NVIDIA H100 80GB HBM3, cuBLASLt)` */
  readonly device: string
  readonly deviceKind: 'cpu' | 'cuda'
  readonly dtype: string
  /** Of keys and values: f32, bf16, f16, fp8_e4m3 or fp8_e5m2. */
  readonly kvCacheDtype: string
  /** That compute, on the CPU; 0 on a GPU. Of one rank, as bytes and floating-point operations here. */
  readonly threads: number
  /** Ranks that share the model. */
  readonly tensorParallelSize: number
  readonly maxModelLen: number
  readonly vocabSize: number
  readonly parameters: number
  /** Bytes of weights that one decode step reads, and floating-point operations of the linear layers for one token (head left out). */
  readonly bytesPerStep: number
  readonly flopsPerToken: number
  /** Floating-point operations of attention for one token, for each token that it sees. */
  readonly flopsPerTokenSeen: number
  /** Prompts longer than this cannot be compared with an uncached computation (dynamic NTK); null: none are. */
  readonly lengthBound: number | null
  /** A template that the model brings for checkpoints that come without one. */
  readonly chatTemplate: string | null
  readonly ledger: MemoryLedger
  /** Bytes that the device has left once everything of the ledger is taken. */
  readonly freeMemory: number
}

/** What the device can do at most, measured: reading over the weights' own memory, and multiplying in the weights' type. */
export interface DeviceLimits {
  readonly readBytesPerSecond: number
  readonly flops: number
}

/** The surface that the server and the command line stand on; `LLM` implements it. */
export interface LanguageModel {
  readonly info: LLMInfo
  readonly hasTokenizer: boolean
  readonly hasChatTemplate: boolean
  generate(
    prompts: Prompt | readonly Prompt[],
    params?: Partial<SamplingParams> | readonly Partial<SamplingParams>[],
    options?: RequestOptions,
  ): Promise<RequestOutput[]>
  stream(prompt: Prompt, params?: Partial<SamplingParams>, options?: RequestOptions): AsyncIterableIterator<CompletionDelta>
  logits(promptTokenIds: readonly number[]): Promise<{ shape: readonly [number, number]; data: Float32Array }>
  /** The ids that a prompt becomes, checked against vocabulary and context length. */
  tokenize(prompt: Prompt): readonly number[]
  detokenize(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string
  /** A token's own text and bytes. */
  tokenText(id: number): { token: string; bytes: readonly number[] }
  stats(): Promise<EngineStats>
  resetPrefixCache(): Promise<void>
  close(): Promise<void>
}
