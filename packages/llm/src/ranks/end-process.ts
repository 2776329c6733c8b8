/** Ends this process. stuck: a thread is in a kernel that does not return, and an orderly end would wait for it. */
export function endProcess(status: number, stuck: boolean): never {
  if (stuck) process.kill(process.pid, 'SIGKILL')
  process.exit(status)
}
