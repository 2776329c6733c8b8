/** Lines for people on stderr: `weights     1.2 of 2.4 GB`. A repeated first word rewrites its line on a terminal. */
export function progressPrinter(stream: NodeJS.WriteStream = process.stderr): (message: string) => void {
  let last = ''
  return (message) => {
    const [head = '', ...rest] = message.split(': ')
    const line = rest.length ? `${head.padEnd(12)}${rest.join(': ')}` : message
    if (stream.isTTY && head === last) stream.write(`\x1b[1A\x1b[2K${line}\n`)
    else if (stream.isTTY || head !== last || /loaded$/.test(message)) stream.write(`${line}\n`)
    last = head
  }
}

export const gigabytes = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e3).toFixed(1)} kB`
export const thousands = (n: number): string => n.toLocaleString('en-US')
