# call(TEXT, PATIENCE): a line of TEXT is `protocol address port expected`; prints, line by line, what answered. Each is
# tried until that begins with what is expected, for PATIENCE seconds in all. An address may be a name; one that begins
# with `_` is asked for by SRV, which gives address and port. Names of the cluster are resolved by the machine's own
# resolver (in a pod), or by a name server that is given (elsewhere). Needs no more than Debian's python3-minimal.
import socket, struct, time


def skip(data, at):
    while data[at]:
        if data[at] >= 192:
            return at + 2
        at += data[at] + 1
    return at + 1


def records(server, name, kind):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    s.sendto(struct.pack("!6H", 1, 256, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1), (server, 53))
    data = s.recv(4096)
    counts = struct.unpack("!4H", data[4:12])
    at = skip(data, 12) + 4
    for _ in range(sum(counts[1:])):
        at = skip(data, at)
        found, _, _, size = struct.unpack("!HHIH", data[at : at + 10])
        yield found, data[at + 10 : at + 10 + size]
        at += 10 + size


def resolve(server, name, port):
    a, srv = 1, 33
    if name.startswith("_"):
        if not server:
            lines = [line.split() for line in open("/etc/resolv.conf")]
            server = [line[1] for line in lines if line[:1] == ["nameserver"]][0]
        found = dict(records(server, name, srv))
        return socket.inet_ntoa(found[a]), struct.unpack("!H", found[srv][4:6])[0]
    if server and not name[0].isdigit():
        return socket.inet_ntoa(dict(records(server, name, a))[a]), port
    return socket.gethostbyname(name), port


def once(server, protocol, name, port):
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)
        s.settimeout(2)
        s.connect(resolve(server, name, int(port)))
        if protocol == "UDP":
            s.send(b"?")
        return s.recv(100).decode() or "nothing"
    except (OSError, KeyError, IndexError, struct.error) as error:
        return repr(error)


def call(server, text, patience):
    deadline = time.monotonic() + patience
    for line in text.strip().splitlines():
        protocol, name, port, expected = line.split(None, 3)
        answer = once(server, protocol, name, port)
        while not (answer + " ").startswith(expected + " ") and time.monotonic() < deadline:
            time.sleep(0.3)
            answer = once(server, protocol, name, port)
        print(answer, flush=True)


