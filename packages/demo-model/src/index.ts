import { fileURLToPath } from 'node:url'

const folder = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url))

/** Folder of the model: config.json, model.safetensors, tokenizer.json, chat_template.jinja, and reference.json with what Hugging Face answers. */
export const modelPath: string = folder('model')
/** Folder of a ten times smaller model with the same tokenizer, for speculative decoding. */
export const draftPath: string = folder('draft')
/** Folder of a PEFT LoRA adapter for the model. */
export const adapterPath: string = folder('lora-pirate')
