"""The working representation: one functional ATen graph per model, and what runs and cleans it.

trace       an ExportedProgram or module → Trace (graph, example inputs, which batches are free)
passes      normalise, inplace, recurrent, free_batch, features: each takes a graph and gives one
execution   run a graph over data, in batches, without gradients
parts       the largest submodules that torch.export accepts, for models that it refuses as a whole

Elsewhere: reading files (frontend), which indices go together (coupling), removing them (surgery).
"""
