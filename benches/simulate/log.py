#!/usr/bin/env python3
"""An access log as switchback writes it: N requests, 1 000 a second, 5 % to green, which fails 0.1 % as blue does.

    benches/simulate/log.py 3000000 > access.jsonl
    benches/simulate/log.py 3000000 combined > access.log
"""

import datetime
import random
import sys

START = datetime.datetime(2026, 11, 24, 8, tzinfo=datetime.timezone.utc)
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def main() -> None:
    count = int(sys.argv[1])
    combined = sys.argv[2:] == ["combined"]
    chance = random.Random(1)
    write = sys.stdout.write
    for index in range(count):
        at = START + datetime.timedelta(milliseconds=index)
        client = f"198.51.{chance.randrange(100)}.{chance.randrange(250)}"
        backend, version = ("green", "42") if chance.random() < 0.05 else ("blue", "41")
        status = 502 if chance.random() < 0.001 else 200
        path = f"/products/{chance.randrange(100000)}"
        if combined:
            time = at.strftime("%d/%b/%Y:%H:%M:%S +0000")
            write(f'{client} - - [{time}] "GET {path} HTTP/1.1" {status} 5123 "-" "{AGENT}"\n')
            continue
        time = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{index % 1000:03}Z"
        took = round(chance.uniform(1, 40), 3)
        write(
            f'{{"time":"{time}","client":"{client}","listener":"web","method":"GET","host":"shop.example.com",'
            f'"path":"{path}","protocol":"HTTP/1.1","status":{status},"bytes":5123,"duration_ms":{took},'
            f'"service":"shop","backend":"{backend}","version":"{version}",'
            f'"request_id":"019ab000-0000-7000-8000-{index:012x}","user_agent":"{AGENT}"}}\n'
        )


if __name__ == "__main__":
    main()
