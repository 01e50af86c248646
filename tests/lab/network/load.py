# load(HOST, PORT, RATE, SECONDS): so many new connections a second, evenly, each to be answered within three seconds, until
# the file /tmp/load-stop exists or so many seconds have passed; prints how many there were and failed, then what the failures
# were.
import os, socket, threading, time


def load(host, port, rate, seconds):
    address = socket.gethostbyname(host)
    failures = []

    def one(at):
        try:
            s = socket.create_connection((address, port), timeout=3)
            if not s.recv(100):
                raise OSError("closed without an answer")
            s.close()
        except OSError as error:
            failures.append(f"{at:.2f} s: {error!r}")

    began = time.monotonic()
    callers = []
    for number in range(rate * seconds):
        if number % rate == 0 and os.path.exists("/tmp/load-stop"):
            break
        at = number / rate
        time.sleep(max(0, began + at - time.monotonic()))
        callers.append(threading.Thread(target=one, args=(at,)))
        callers[-1].start()
    for caller in callers:
        caller.join()
    print(len(callers), len(failures))
    print("\n".join(failures))


