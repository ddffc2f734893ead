"""Apply a removal to a Trace: slice tensors, rewrite shape constants, certify.

cut       the trace without the removed components, proven by one run
recipe    what was kept, for the user's own class; apply slices the class by it
oracle    masked twins that tests compare with

Elsewhere: which components to remove (search), removal that changes nothing (simplify).
"""
