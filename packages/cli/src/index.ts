export { main, run } from './run.ts'
export { everyVariable } from './variables.ts'
