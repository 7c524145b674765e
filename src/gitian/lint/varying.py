"""Scripts whose outcome varies: with the clock, with random numbers, with the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from gitian.lint import rules
from gitian.lint.commands import Command, Script, parse
from gitian.lint.facts import Facts, assignments, used
from gitian.lint.model import Findings, Rule, Severity
from gitian.lint.shell import Word

_CLOCK_VARIABLE = re.compile(r"(?<!\\)\$\{?(EPOCHSECONDS|EPOCHREALTIME)\b")
_RANDOM_VARIABLE = re.compile(r"(?<!\\)\$\{?(RANDOM|SRANDOM)\b")
_RANDOM_FILE = re.compile(r"/dev/u?random\b|/proc/sys/kernel/random/uuid")
_RELATIVE = re.compile(r"[a-z +-]*(now|today|yesterday|tomorrow|ago|hours?|days?|weeks?|months?|years?)[a-z0-9 +-]*",
                       re.IGNORECASE)
_PYTHON_CLOCK = re.compile(r"\b(time\.time\(|time\.(gm|local)time\(\)|datetime\.(utc)?now\(|date\.today\()")
_PYTHON_RANDOM = re.compile(r"\b(random\.\w+\(|uuid\.uuid[14]\(|os\.urandom\(|secrets\.\w+\()")
_INTERPRETER = re.compile(r"python[0-9.]*|perl|ruby|node")
_TEXTS = frozenset(("echo", "printf", ":"))
#: Programs that make keys or numbers by chance, when one of these words is among theirs.
_CHANCE: dict[str, frozenset[str] | None] = {
    "uuidgen": None, "pwgen": None, "apg": None, "makepasswd": None,
    "openssl": frozenset(("rand", "genrsa", "genpkey", "gendsa", "ecparam")), "ssh-keygen": frozenset(("-t", "-N")),
    "gpg": frozenset(("--gen-key", "--full-gen-key", "--quick-gen-key", "--quick-generate-key", "--generate-key")),
    "gpg2": frozenset(("--gen-key", "--full-gen-key", "--quick-gen-key", "--quick-generate-key", "--generate-key")),
    "keytool": frozenset(("-genkey", "-genkeypair")), "dbus-uuidgen": None,
}


def check(facts: Facts, findings: Findings) -> None:
    """Apply the rules clock, random, temporary-name, machine and output-varies."""
    varying = _varying_variables(facts)
    for command in facts.script.commands:
        for rule, what in _sources(facts, command):
            _report(facts, command, rule, what, findings)
        _check_machine(command, findings)
        _check_output(facts, command, varying, findings)


def _sources(facts: Facts, command: Command) -> Iterator[tuple[Rule, str]]:
    """What in this command, not in those within its words, comes from the clock or by chance."""
    name = command.name
    own = _own_text(command)
    if name not in facts.script.functions:
        if name == "date" and not facts.is_faked(command) and _reads_clock(command):
            yield rules.CLOCK, "'date' without a date to show reads the clock"
        if name == "mktemp" or name == "tempfile":
            yield rules.TEMPORARY_NAME, f"'{name}' makes a random name"
        if name in _CHANCE and _is_chance(command):
            yield rules.RANDOM, f"'{name}' makes something random"
        if name == "shuf" and not command.has("--random-source"):
            yield rules.RANDOM, "'shuf' without --random-source makes a random order"
        if name == "sort" and command.has("-R", "--random-sort") and not command.has("--random-source"):
            yield rules.RANDOM, "'sort -R' makes a random order"
    if found := _CLOCK_VARIABLE.search(own):
        yield rules.CLOCK, f"'${found[1]}' is the clock"
    if (name == "printf" and re.search(r"%\([^)]{0,100}\)T", own)
            and not re.search(r"\d{6}|\$", " ".join(command.texts[1:]))):
        yield rules.CLOCK, "'%(...)T' of printf reads the clock"
    if found := _RANDOM_VARIABLE.search(own):
        yield rules.RANDOM, f"'${found[1]}' is a random number"
    if (found := _RANDOM_FILE.search(own)) and "--random-source" not in own:
        yield rules.RANDOM, f"'{found[0]}' holds random numbers"
    if _INTERPRETER.fullmatch(name):
        text = "\n".join((own, *command.documents))
        if (found := _PYTHON_CLOCK.search(text)) and not facts.is_faked(command):
            yield rules.CLOCK, f"'{found[1]}' reads the clock"
        if (found := _PYTHON_RANDOM.search(text)) and "random.seed(" not in text:
            yield rules.RANDOM, f"'{found[1]}' makes something random"


def _own_text(command: Command) -> str:
    """The command's words, without the scripts within them, which are commands of their own."""
    texts = []
    for word in command.everything:
        text = word.text
        for inner, _ in word.inner:
            text = text.replace(inner, "")
        texts.append(text)
    return " ".join(texts)


def _reads_clock(command: Command) -> bool:
    values: list[str] = []
    texts = list(command.texts)
    for number, text in enumerate(texts):
        following = texts[number + 1] if number + 1 < len(texts) else ""
        if text in ("--version", "--help"):
            return False
        if text.startswith(("--date=", "--reference=", "--file=", "--set=")):
            values.append(text.partition("=")[2])
        elif text in ("--date", "--reference", "--file", "--set"):
            values.append(following)
        elif re.match(r"-[A-HJ-Za-z]*[drfs]", text) and not text.startswith("--"):  # not -I[FMT]
            letter = re.search(r"[drfs]", text)
            assert letter is not None
            values.append(text[letter.end():] or following)
    return not values or any(_RELATIVE.fullmatch(value[:200]) for value in values)


def _is_chance(command: Command) -> bool:
    wanted = _CHANCE[command.name]
    if wanted is None:
        # 'uuidgen --sha1 -n ... -N ...' is made from its words.
        return not command.has("--sha1", "--md5", "-s", "-m")
    return any(text in wanted for text in command.texts)


def _report(facts: Facts, command: Command, rule: Rule, what: str, findings: Findings) -> None:
    severity: Severity | None = None
    message = f"{what}."
    top = command
    while top.outer is not None:
        top = top.outer
    target = next((name for name, word in assignments(top) if name == "SOURCE_DATE_EPOCH"
                   and rule is rules.CLOCK and (top is command or any(word.inner))), None)
    if target is not None:
        findings.add(rules.OUTPUT_VARIES, "SOURCE_DATE_EPOCH is set from the clock, so every build has another one.",
                     line=command.line, end_line=command.end_line, where="script")
    elif _only_said(facts, top):
        severity, message = Severity.NOTE, message[:-1] + "; it only gets into the log."
    findings.add(rule, message, line=command.line, end_line=command.end_line, where="script", severity=severity)


def _only_said(facts: Facts, command: Command) -> bool:
    """Whether what the command says goes nowhere but to the log."""
    line = facts.script.pipeline_of(command)
    if any(kind in (">", ">>", "&>", "&>>", ">|") for other in line for kind, _ in other.redirections):
        return False
    return all(other.name in _TEXTS or other.name == "date" for other in line) and not command.assignments


def _check_machine(command: Command, findings: Findings) -> None:
    for word in command.everything:
        if found := re.search(r"-m(?:arch|tune|cpu)=native\b|-C *target-cpu=native\b", word.text):
            findings.add(rules.MACHINE, f"'{found[0]}' makes code for the machine that it is built on.", line=word.line,
                         where="script")
    if command.name in ("hostname", "hostid", "nproc", "lscpu") or (
            command.name == "uname" and command.has("-n", "-r", "-v", "-a", "--all", "--nodename", "--kernel-release")):
        if command.name == "nproc":
            return  # how many jobs run at once is no matter to what they make
        findings.add(rules.MACHINE, f"{command.name} tells of the machine, not of the source.", line=command.line,
                     end_line=command.end_line, where="script", severity=Severity.NOTE)


def _varying_variables(facts: Facts) -> dict[str, str]:
    """Variable to the reason why its value differs from build to build, through other variables too."""
    found: dict[str, str] = {}
    for _ in range(4):
        for name, words in facts.assigned.items():
            for word in words:
                reason = _why_varies(facts, word, found)
                if reason is not None:
                    found.setdefault(name, reason)
    return found


def _why_varies(facts: Facts, word: Word, varying: dict[str, str]) -> str | None:
    """'the clock' or 'random numbers' when a word is made from them."""
    if _CLOCK_VARIABLE.search(word.text):
        return "the clock"
    if _RANDOM_VARIABLE.search(word.text):
        return "random numbers"
    for variable in sorted(used(word.text) & varying.keys()):
        return varying[variable]
    for text, line in word.inner:
        for command in _parsed(text, line).commands:
            for rule, _ in _sources(facts, command):
                if rule is not rules.TEMPORARY_NAME:
                    return "the clock" if rule is rules.CLOCK else "random numbers"
    return None


@lru_cache(maxsize=4096)
def _parsed(text: str, line: int) -> Script:
    return parse(text, line)


def _check_output(facts: Facts, command: Command, varying: dict[str, str], findings: Findings) -> None:
    """A name in the directory of outputs, or what is written there, that differs from build to build."""
    for word in command.everything:
        if facts.goes_out(word) and (reason := _why_varies(facts, word, varying)) is not None:
            findings.add(rules.OUTPUT_VARIES, f"The name of an output comes from {reason}: '{word.text[:120]}'.",
                         line=word.line, where="script")
            return
    into = [word for other in facts.script.pipeline_of(command) for kind, word in other.redirections
            if kind in (">", ">>", "&>", "&>>", ">|") and facts.goes_out(word)]
    if not into:
        return
    reasons = [_why_varies(facts, word, varying) for word in command.words]
    for rule, _ in _sources(facts, command):
        if rule is not rules.TEMPORARY_NAME:
            reasons.append("the clock" if rule is rules.CLOCK else "random numbers")
    reason = next((reason for reason in reasons if reason), None)
    if reason is not None:
        findings.add(rules.OUTPUT_VARIES, f"What is written to '{into[0].text[:120]}' comes from {reason}.",
                     line=command.line, end_line=command.end_line, where="script")
