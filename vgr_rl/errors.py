"""Errors that a user caused and can mend."""


class ConfigError(ValueError):
    """A setting, file or machine does not fit; the message names what was given, what is needed and the knob."""


def bullet_list(problems: list[str], limit: int = 20) -> str:
    """Return one line a problem, at most `limit`, and how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  … and {len(problems) - limit} more")
    return "\n".join(lines)
