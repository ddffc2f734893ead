"""The Pareto front of one run, and the file of it that ships.

front                smaller and larger plans beside the accepted one, exported and timed together
quantized_variants   8-bit forms of those files
select_artifact      which file becomes model.onnx
proof                parity, accuracy and timing of that file
pick                 another point of the front as a folder to ship

Elsewhere: the search for the accepted network (search), presenting the result (report).
"""
