"""From CSV to rows."""

from .dialect import Dialect


def loads(text, dialect=Dialect()):
    """The rows in *text*. Lines may end in any way; empty lines are no rows."""
    rows, row, field = [], [], []
    quoted = False  # inside quotes
    was_quoted = False  # the present field had quotes, so it counts even if it is empty
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if quoted:
            if character != dialect.quote:
                field.append(character)
            elif text[position : position + 1] == dialect.quote:
                field.append(dialect.quote)
                position += 1
            else:
                quoted = False
        elif character == dialect.quote and not field:
            quoted = was_quoted = True
        elif character == dialect.delimiter:
            row.append("".join(field))
            field, was_quoted = [], False
        elif character in "\r\n":
            if row or field or was_quoted:
                row.append("".join(field))
                rows.append(row)
            row, field, was_quoted = [], [], False
        else:
            field.append(character)
    if row or field or was_quoted:
        row.append("".join(field))
        rows.append(row)
    return rows
