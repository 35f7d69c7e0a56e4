"""The command of a page that begins with a word, with its further lines: commands.py PAGE WORD."""

import sys


def main(page, word):
    with open(page, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    start = next(at for at, line in enumerate(lines) if line.startswith(f"{word} "))
    for line in lines[start:]:
        print(line)
        if not line.endswith("\\"):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
