"""serve.py NAME PORT: tells every caller, over TCP and UDP, NAME and the address that it is seen at."""
import os, signal, socket, sys, threading

# The first process of a container is ended by nothing that it does not handle.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
name, port = sys.argv[1], int(sys.argv[2])
tcp = socket.socket()
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", port))
tcp.bind(("", port))
tcp.listen(64)


def answer_datagrams():
    while True:
        _, peer = udp.recvfrom(100)
        udp.sendto(f"{name} {peer[0]}".encode(), peer)


threading.Thread(target=answer_datagrams, daemon=True).start()
while True:
    connection, peer = tcp.accept()
    try:
        connection.sendall(f"{name} {peer[0]}".encode())
    except OSError:
        pass  # a probe that has left
    connection.close()
