import { type GroupTable, SlotTable } from './cache-groups.ts'
import { engineError } from './errors.ts'

/** Layers that keep a fixed amount for each sequence: a slot while it runs. Slot 0 is never given out: padding points at it. */
export class StateGroup {
  readonly kind = 'state'
  /** Slot 0 included. */
  readonly slots: number
  readonly #free: number[] = []

  constructor(slots: number) {
    this.slots = slots
    for (let slot = slots - 1; slot > 0; slot--) this.#free.push(slot)
  }

  open(): SlotTable {
    return new SlotTable()
  }

  reservable(table: GroupTable, upTo: number): number {
    return (table as SlotTable).slot !== 0 || this.#free.length > 0 ? upTo : 0
  }

  reserve(table: GroupTable): void {
    const t = table as SlotTable
    if (t.slot === 0) t.slot = this.#free.pop()!
  }

  fits(table: GroupTable): boolean {
    return (table as SlotTable).slot !== 0 || this.#free.length > 0
  }

  /** A state never falls out of a window. */
  trim(): void {}

  release(table: GroupTable): void {
    const t = table as SlotTable
    if (t.slot !== 0) this.#free.push(t.slot)
    t.slot = 0
  }

  assertBalanced(): void {
    if (this.#free.length !== this.slots - 1 || new Set(this.#free).size !== this.#free.length)
      throw engineError('UNBALANCED', `${this.#free.length} of ${this.slots - 1} state slots are free where all should be`)
  }
}
