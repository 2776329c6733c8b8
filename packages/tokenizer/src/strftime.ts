const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December']

/** Python's `strftime` in the C locale and local time; codes that chat templates do not use are left as they are. */
export function strftime(date: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, '0')
  const day = DAYS[date.getDay()]!
  const month = MONTHS[date.getMonth()]!
  const hour12 = date.getHours() % 12 || 12
  const dayOfYear =
    Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 1)) / 86_400_000) + 1
  const codes: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    e: () => String(date.getDate()).padStart(2, ' '),
    B: () => month,
    b: () => month.slice(0, 3),
    h: () => month.slice(0, 3),
    A: () => day,
    a: () => day.slice(0, 3),
    H: () => two(date.getHours()),
    I: () => two(hour12),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    f: () => `${String(date.getMilliseconds()).padStart(3, '0')}000`,
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    j: () => String(dayOfYear).padStart(3, '0'),
    w: () => String(date.getDay()),
    F: () => strftime(date, '%Y-%m-%d'),
    D: () => strftime(date, '%m/%d/%y'),
    T: () => strftime(date, '%H:%M:%S'),
    R: () => strftime(date, '%H:%M'),
    '%': () => '%',
  }
  // `%-d` is the number without its leading zero.
  return format.replace(/%(-?)([A-Za-z%])/g, (code, minus: string, letter: string) => {
    const value = Object.hasOwn(codes, letter) ? codes[letter]!() : undefined
    if (value === undefined) return code
    return minus ? value.replace(/^0+(?=\d)/, '') : value
  })
}
