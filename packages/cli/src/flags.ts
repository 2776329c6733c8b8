/** What a flag's text may be. */
export type FlagType =
  | { readonly kind: 'string' }
  | { readonly kind: 'list' }
  | { readonly kind: 'boolean' }
  | { readonly kind: 'count'; readonly least?: number }
  | { readonly kind: 'number' }
  | { readonly kind: 'bytes' }
  /** `128`, or `100-1024`: least and most. */
  | { readonly kind: 'span' }
  | { readonly kind: 'choice'; readonly of: readonly string[] }

/** One setting: `--name`, `APHRODITE_NAME`, and `name:` in a config file. */
export interface Flag {
  /** With dashes: `max-model-len`. */
  readonly name: string
  readonly short?: string
  readonly type: FlagType
  readonly help: string
  /** What happens when it is not given, for --help. */
  readonly default: string
}

export interface FlagGroup {
  readonly title: string
  readonly flags: readonly Flag[]
}

const string: FlagType = { kind: 'string' }
const boolean: FlagType = { kind: 'boolean' }
const number: FlagType = { kind: 'number' }
const count = (least = 1): FlagType => ({ kind: 'count', least })
const choice = (...of: string[]): FlagType => ({ kind: 'choice', of })

export const GENERAL: FlagGroup = {
  title: 'General',
  flags: [
    { name: 'config', type: string, help: 'a YAML file with any of these settings: `max-model-len: 4096`', default: 'none' },
    { name: 'help', short: 'h', type: boolean, help: 'show this', default: 'false' },
  ],
}

export const MODEL: FlagGroup = {
  title: 'Model',
  flags: [
    { name: 'revision', type: string, help: 'branch, tag or commit of a hub id', default: 'main' },
    { name: 'tokenizer', type: string, help: 'folder or hub id of the tokenizer', default: 'the model' },
    { name: 'skip-tokenizer-init', type: boolean, help: 'token ids in and out only', default: 'false' },
    { name: 'chat-template', type: string, help: 'a Jinja file, or the template itself', default: "the model's own" },
    {
      name: 'load-format',
      type: choice('auto', 'safetensors', 'dummy'),
      help: 'dummy: random weights of the right shapes, no file',
      default: 'auto',
    },
    {
      name: 'dtype',
      type: choice('auto', 'float32', 'bfloat16', 'float16'),
      help: 'of activations and weights',
      default: "auto: the checkpoint's; bfloat16 for float32 on a GPU",
    },
    { name: 'quantization', short: 'q', type: string, help: 'method of the weights', default: "the checkpoint's" },
    { name: 'max-model-len', type: count(), help: 'most tokens of one sequence, prompt and answer', default: "the model's" },
    { name: 'plugin', type: { kind: 'list' }, help: 'a package or a path that brings models; repeatable', default: 'none' },
    { name: 'seed', type: count(0), help: 'for dummy weights, and for requests without a seed of their own', default: 'random' },
  ],
}

export const DEVICE: FlagGroup = {
  title: 'Device',
  flags: [
    { name: 'device', type: string, help: 'where the model runs: auto, cpu, cuda, cuda:1', default: 'auto: a GPU where there is one' },
    { name: 'threads', type: count(), help: 'kernel threads on the CPU', default: 'one a core' },
    { name: 'pin-threads', type: boolean, help: 'tie kernel threads to cores', default: 'true' },
    {
      name: 'tensor-parallel-size',
      short: 'tp',
      type: count(),
      help: 'ranks that share the model',
      default: '1; under a launcher: its ranks',
    },
    { name: 'rank-timeout', type: number, help: 'seconds that a rank waits for the others before all give up', default: '30' },
  ],
}

export const CACHE: FlagGroup = {
  title: 'Cache and scheduling',
  flags: [
    { name: 'max-num-seqs', type: count(), help: 'most sequences in one step', default: '256' },
    {
      name: 'max-num-batched-tokens',
      type: count(),
      help: 'most tokens in one step; longer prompts are cut into chunks',
      default: '512; on a GPU 8192',
    },
    { name: 'enable-prefix-caching', type: boolean, help: 'reuse the cache of equal beginnings', default: 'true' },
    {
      name: 'kv-cache-dtype',
      type: choice('auto', 'f32', 'bf16', 'f16', 'fp8', 'fp8_e4m3', 'fp8_e5m2'),
      help: 'of keys and values in the cache; fp8 is fp8_e4m3 and holds twice the tokens of bf16',
      default: 'auto: dtype',
    },
    { name: 'kv-cache-size', type: { kind: 'bytes' }, help: 'memory of the KV cache: 4GiB', default: 'what is left' },
    { name: 'memory-fraction', type: number, help: 'CPU: how much of the free memory workspace and cache may use', default: '0.5' },
    {
      name: 'gpu-memory-utilization',
      type: number,
      help: "GPU: how much of the card's memory weights, workspace and cache may use",
      default: '0.9',
    },
    { name: 'capture-at-start', type: boolean, help: 'GPU: capture steps at the start, not when they are met', default: 'false' },
  ],
}

export const SERVER: FlagGroup = {
  title: 'Server',
  flags: [
    { name: 'host', type: string, help: 'address to listen on; 0.0.0.0 for all', default: '127.0.0.1' },
    { name: 'port', type: count(0), help: '0: any free one', default: '2242' },
    { name: 'api-key', type: string, help: 'demand it as a bearer token', default: 'none' },
    {
      name: 'served-model-name',
      type: { kind: 'list' },
      help: 'what requests may call the model; repeatable, the first is in answers',
      default: 'the model',
    },
    { name: 'cors-origin', type: { kind: 'list' }, help: 'origin that browsers may call from; repeatable, * for all', default: 'none' },
    { name: 'body-limit', type: { kind: 'bytes' }, help: 'largest request', default: '4MiB' },
    { name: 'log-requests', type: boolean, help: 'a line for every request', default: 'false' },
  ],
}

export const TEMPERATURE: Flag = {
  name: 'temperature',
  type: number,
  help: '0 takes the most likely token',
  default: '1; bench: 0',
}

export const SAMPLING: FlagGroup = {
  title: 'Sampling',
  flags: [
    TEMPERATURE,
    { name: 'top-k', type: count(0), help: 'only the k most likely; 0: all', default: '0' },
    { name: 'top-p', type: number, help: 'only the most likely that together reach p', default: '1' },
    { name: 'min-p', type: number, help: 'only those at least this fraction as likely as the first', default: '0' },
    { name: 'repetition-penalty', type: number, help: 'above 1: tokens already seen are less likely', default: '1' },
    { name: 'presence-penalty', type: number, help: 'taken from tokens of the answer', default: '0' },
    { name: 'frequency-penalty', type: number, help: 'taken as often as they occurred', default: '0' },
    { name: 'max-tokens', type: count(), help: 'longest answer', default: "until the model's context is full" },
    { name: 'stop', type: { kind: 'list' }, help: 'text that ends the answer; repeatable', default: 'none' },
    { name: 'sampling-seed', type: count(0), help: 'same seed, same answer', default: 'random' },
  ],
}

/** Everything that LLM.create takes. */
export const ENGINE_GROUPS: readonly FlagGroup[] = [MODEL, DEVICE, CACHE]
