"""Where prompts come from: questions, the split into training and held-out, and a resumable
order.
"""
