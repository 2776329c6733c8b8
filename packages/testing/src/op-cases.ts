export { EXACT, type OpCase, type Tolerance } from './op-cases/case.ts'
export { CaseMemory, type FloatOptions, type Output } from './op-cases/memory.ts'
export { type Downloaded, type OpCaseResult, outputsOf, type PreparedCase, prepareOpCase, runOpCase } from './op-cases/run.ts'
export { OP_CASES } from './op-cases/table.ts'
