"""Tasks: what a model's outputs mean. The only room that takes an arg max or assumes class numbers.

base            the contract, for third parties as well
choose          the task of a run: asked for or inferred, measured, fitted
registry        tasks by name, by entry point, by module:name
infer           which task outputs and targets belong to, and why
multi           several outputs, one task each
user            metrics and tasks of the user's own
classification, binary, multilabel, segmentation, tokens, ctc       on categorical
regression, forecasting, embedding, generic, detection              on generic
comparison      what a compressed model lost by the task's measure
bounds          intervals of shares and of paired losses
"""
