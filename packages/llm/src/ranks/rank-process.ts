// A rank that rank 0 has started. It is told on its standard input what to do, and leaves when that ends.
import { createInterface } from 'node:readline'
import type { ChildOrder } from './children.ts'
import { endProcess } from './end-process.ts'
import { follow } from './follow.ts'

// An interrupt from the terminal reaches every process of the program: rank 0 decides what comes of it.
process.on('SIGINT', () => {})

const input = createInterface({ input: process.stdin })
const left = new Promise<string>((resolve) => input.once('close', () => resolve('rank 0 is gone: its process ended')))
const line = await new Promise<string | undefined>((resolve) => {
  input.once('line', resolve)
  void left.then(() => resolve(undefined))
})
if (line !== undefined) {
  const { place, setup, rankTimeout } = JSON.parse(line) as ChildOrder
  const { error, stuck } = await follow(place, setup, rankTimeout, left).catch((error: Error) => ({ error, stuck: false }))
  // Rank 0 says what went wrong.
  endProcess(error ? 1 : 0, stuck)
}
