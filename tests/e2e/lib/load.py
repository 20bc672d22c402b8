#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Load in a process of its own, so that it does not wait for the test's threads: run in a pod's namespace by Load, it
says "ready", works until its input ends, and then says what it came to, as JSON.

  echo PORT                      sends everything back
  calls IP PORT RATE             so many new connections a second, whatever becomes of the earlier ones (but not those of the
                                 time that it could not run): 64 bytes there and back; `lag` is the longest time that this process itself had to wait for its turn
  streams IP PORT COUNT BYTES    so many connections at once, so many bytes a second on each, there and back; hashes"""
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time

CALL_DEADLINE = 25   # seconds that a call may take before it has failed
TICK = 0.05
BURST = 0.2          # seconds whose calls are made up for at once
LAST_WORDS = 60      # seconds that the streams have for what is under way


class Load:
    """The process, from the test's side."""

    def __init__(self, host, *argv):
        self.process = host.popen([sys.executable, __file__, *map(str, argv)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True)
        line = self.process.stdout.readline()
        if line != "ready\n":
            self.process.kill()
            raise AssertionError(f"load {' '.join(map(str, argv))}: {line!r} instead of ready")

    def result(self):
        out, _ = self.process.communicate(timeout=LAST_WORDS + CALL_DEADLINE)
        return json.loads(out)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


async def input_ends():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def ready():
    print("ready", flush=True)


# --- echo ----------------------------------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    """Takes no more than its peer takes."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def echo(port):
    server = await asyncio.get_running_loop().create_server(Echo, None, int(port), backlog=4096)
    ready()
    await input_ends()
    server.close()
    return {}


# --- calls ---------------------------------------------------------------------------------------------------------


async def call(ip, port, at):
    """What went wrong, or None; `at` is where it is."""
    try:
        reader, writer = await asyncio.open_connection(ip, port)
        at["step"], at["port"] = "waiting", writer.get_extra_info("sockname")[1]
        try:
            word = os.urandom(64)
            writer.write(word)
            if await reader.readexactly(64) != word:
                return "wrong bytes"
        finally:
            writer.transport.abort() if sys.exc_info()[0] else writer.close()
    except asyncio.IncompleteReadError:
        return "end of file"
    except OSError as e:
        return type(e).__name__
    return None


async def timed_call(ip, port, calls):
    begin, at = time.monotonic(), {"step": "connecting", "port": 0}
    try:
        error = await asyncio.wait_for(call(ip, port, at), CALL_DEADLINE)
    except (TimeoutError, asyncio.TimeoutError):
        error = "TimeoutError"
    calls.append((begin, time.monotonic(), f"{at['step']} from {at['port']}", error))


async def calls(ip, port, rate):
    done, tasks, end = [], set(), asyncio.ensure_future(input_ends())
    await timed_call(ip, int(port), done)
    ready()
    begin, n, lag, turn = time.monotonic(), 0, 0.0, time.monotonic()
    while not end.done():
        late, turn = time.monotonic() - turn, time.monotonic()
        lag, n = max(lag, late), n + int(max(late - BURST, 0) * float(rate))
        while n < (time.monotonic() - begin) * float(rate):
            task = asyncio.ensure_future(timed_call(ip, int(port), done))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            n += 1
        await asyncio.sleep(1 / float(rate))
    await asyncio.gather(*tasks)
    times = sorted(e - b for b, e, _, error in done if not error)
    return {"count": len(done), "failed": [x for x in done if x[3]],
            "lag": lag, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "max": times[-1]}


# --- streams -------------------------------------------------------------------------------------------------------


class Stream:
    def __init__(self):
        self.sent, self.got = hashlib.sha256(), hashlib.sha256()
        self.n_sent = self.n_got = 0
        self.error, self.began = None, asyncio.Event()

    async def run(self, ip, port, rate, noise, end):
        try:
            reader, writer = await asyncio.open_connection(ip, port)
            reading = asyncio.ensure_future(self.read(reader))
            begin = time.monotonic()
            while not end.done() and not reading.done():
                want = int((time.monotonic() - begin) * rate) - self.n_sent
                if want > 0:
                    at = self.n_sent % (len(noise) // 2)
                    chunk = noise[at:at + min(want, len(noise) // 2)]
                    self.sent.update(chunk)
                    self.n_sent += len(chunk)
                    writer.write(chunk)
                    await writer.drain()
                await asyncio.sleep(TICK)
            writer.write_eof()
            await asyncio.wait_for(reading, LAST_WORDS)
            writer.close()
            if self.sent.digest() != self.got.digest():
                self.error = f"{self.n_sent} bytes went, {self.n_got} others came"
        except (OSError, TimeoutError, asyncio.TimeoutError) as e:
            self.error = f"{type(e).__name__} after {self.n_got} bytes"
        finally:
            self.began.set()

    async def read(self, reader):
        while chunk := await reader.read(1 << 17):
            self.got.update(chunk)
            self.n_got += len(chunk)
            self.began.set()


async def streams(ip, port, count, rate):
    end, noise = asyncio.ensure_future(input_ends()), os.urandom(1 << 20)
    all_ = [Stream() for _ in range(int(count))]
    tasks = [asyncio.ensure_future(s.run(ip, int(port), float(rate), noise, end)) for s in all_]
    for s in all_:
        await s.began.wait()
    ready()
    await asyncio.gather(*tasks)
    return {"count": len(all_), "bytes": sum(s.n_got for s in all_), "broken": [s.error for s in all_ if s.error]}


if __name__ == "__main__":
    roles = {"echo": echo, "calls": calls, "streams": streams}
    print(json.dumps(asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))))
