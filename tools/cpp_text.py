"""Reading C++ sources for the checks beside this file: which files there are, and their text without comments."""

import os
import re
import sys

SUFFIXES = (".h", ".cc", ".cpp", ".hpp", ".c")

# One alternative for each thing that can hide another: raw string, string, character, comment. A quote between digits
# is a separator, not a character.
_TOKEN = re.compile(
    r'(?P<raw>R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)")'
    r'|(?P<string>"(?:\\.|[^"\\\n])*")'
    r"|(?P<separator>(?<=[0-9a-fA-F])'(?=[0-9a-fA-F]))"
    r"|(?P<char>'(?:\\.|[^'\\\n])+')"
    r"|(?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)",
    re.DOTALL,
)


def blank(text, keep_strings=False):
    """`text` with comments (and strings, unless kept) emptied; every line keeps its number."""

    def replace(match):
        token = match.group(0)
        if match.group("separator"):
            return token
        if match.group("comment"):
            return " " + "\n" * token.count("\n")
        if keep_strings:
            return token
        quote = "'" if match.group("char") else '"'
        return quote + quote + "\n" * token.count("\n")

    return _TOKEN.sub(replace, text)


_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?P<open>[<"])(?P<path>[^>"\n]+)[>"]', re.MULTILINE)


def includes(text):
    """Yields (line number, '<' or '"', path) for every #include outside comments."""
    code = blank(text, keep_strings=True)
    for match in _INCLUDE.finditer(code):
        yield code.count("\n", 0, match.start("path")) + 1, match.group("open"), match.group("path")


def source_files(root, folders):
    """Paths of the C++ files below `folders`, relative to `root`, with '/', sorted."""
    found = []
    for folder in folders:
        for directory, names, files in os.walk(os.path.join(root, folder)):
            names[:] = [n for n in names if not n.startswith(".") and n != "build"]
            for name in files:
                if name.endswith(SUFFIXES):
                    path = os.path.relpath(os.path.join(directory, name), root)
                    found.append(path.replace(os.sep, "/"))
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def report(tool, problems, checked):
    """Prints the problems, one a line as file:line: text, and exits 1 if there are any."""
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(f"{tool}: {len(problems)} problem(s) in {checked} files")
    print(f"{tool}: {checked} files, no problem")
