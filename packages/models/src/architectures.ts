/** Which module serves which architecture of config.json. A module is imported when its first model is. */
export const ARCHITECTURES: Readonly<Record<string, () => Promise<{ readonly default: unknown }>>> = Object.freeze({
  GemmaForCausalLM: () => import('./gemma.ts'),
  Gemma2ForCausalLM: () => import('./gemma2.ts'),
  Gemma3ForCausalLM: () => import('./gemma3.ts'),
  LlamaForCausalLM: () => import('./llama.ts'),
  MinistralForCausalLM: () => import('./llama.ts'),
  MistralForCausalLM: () => import('./llama.ts'),
  Phi3ForCausalLM: () => import('./phi3.ts'),
  Qwen2ForCausalLM: () => import('./qwen2.ts'),
  Qwen3ForCausalLM: () => import('./qwen3.ts'),
})
