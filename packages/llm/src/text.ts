import { ChatTemplate, Tokenizer } from '@aphrodite/tokenizer'

/** The tokenizer of a folder, and its chat template when it has one or one is given (a file or the template itself). */
export async function openTokenizer(
  folder: string,
  chatTemplate: string | undefined,
): Promise<{ tokenizer: Tokenizer; chatTemplate: ChatTemplate | null }> {
  const tokenizer = Tokenizer.fromFolder(folder)
  return { tokenizer, chatTemplate: ChatTemplate.fromFolder(folder, { ...(chatTemplate !== undefined && { template: chatTemplate }) }) }
}
