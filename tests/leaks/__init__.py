"""Names and numbers of invented people, planted in every format, must never come out again."""
