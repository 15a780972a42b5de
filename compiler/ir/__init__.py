"""The IR in memory and as text: types, values, ops, functions, modules; parser and printer."""
