"""How large things are: the median of the largest extents that the pack's furniture has under a name."""

from __future__ import annotations

import re
from functools import lru_cache

# name, metres
SIZES = """
air conditioner 0.83; air mattress 1.8; angle grinder 0.51; aquarium 0.7; armchair 0.95; ashtray 0.078; baby
bottle 0.15; baby high chair 1; backpack 0.4; bamboo 0.34; banknote 0.13; bar stool 1.1; barrel 0.9; basin
0.77; basketball 0.24; basketball hoop 1.1; bathmat 0.73; bathroom vanity 2.1; bathtub 1.7; bean bag 0.91;
bed 2.1; beer bottle 0.2; beer mug 0.17; bench 1.6; bicycle 1.3; bidet 0.54; birthday cake 0.24; blender
0.43; bolt cutter 0.6; bonsai tree 0.45; book 0.28; bookcase 2.2; boots 0.27; bottle 0.13; bowl 0.42; bowl of
apples 0.26; bowl of fruit 0.34; bowl of salad 0.25; box 1.3; bread 0.22; bread box 0.56; briefcase 0.4;
broom 1.6; brush 0.19; bunk bed 2.3; bus 13; bush 1.5; butter 0.16; cabinet 0.84; cactus 0.23; calendar 0.12;
camera 0.12; camping tent 2.5; candle 0.29; canopy 3.4; cap 0.33; car 4.4; cardboard box 0.55; cat 0.63;
ceiling fan 0.91; ceiling lamp 0.75; chair 0.88; chandelier 1.7; changing table 1.2; chessboard 0.3; chest
1.2; chest freezer 1; chicken 0.46; chimney 1.2; christmas tree 1.2; clock 0.07; clothes basket 0.67; clothes
rack 1.3; coat hanger 0.42; coat hooks 0.45; cocktail glass 0.13; coffee cup 0.12; coffee machine 0.39;
column 2.5; comb 0.096; cooktop 0.58; corner sofa 2.5; cosmetics pot 0.078; cradle 0.82; crate 0.6; creamer
0.12; crib 1.2; cup 0.11; cupboard 1.5; cupcake 0.075; curtains 2.2; cutting board 0.38; dartboard 0.45; deck
chair 1.7; deep fryer 0.57; deer statue 0.2; desk 1.4; diving board 1.8; dog 0.74; dog house 0.9; doll 0.16;
dollhouse 0.87; door 2.1; dresser 1.6; dressing table 1.4; drill 0.27; drying rack 0.95; dustpan 0.54; dvd
player 0.43; electric guitar 1.1; electric piano 0.8; electronic scale 0.22; escalator 8.8; exercise bike
1.3; fan 0.4; faucet 0.2; fence 1.8; fire extinguisher 0.62; fire hydrant 0.76; fireplace 1.8; flashlight
0.15; flower box 0.55; folded clothes 0.4; folding screen 1.9; foosball table 1.5; fork 0.18; forklift 3.5;
fountain 1.8; french fries 0.2; french press 0.27; game controller 0.16; gift box 0.25; glass 0.12; glasses
0.15; glove 0.27; grand piano 1.8; hamburger 0.11; hammer 0.35; hammock 3.5; handbag 0.26; hanging clothes
1.3; hat 0.42; headphones 0.2; hedge 1.5; helmet 0.38; high heels 0.28; highlighter 0.1; horse 2.5; hose reel
0.46; hot dog 0.21; intercom 0.36; intercom with screen 0.36; jacket 0.6; jacuzzi 2.3; japanese lantern 0.35;
jug 0.25; juicer 0.16; kettle 0.2; keys 0.12; kitchen scale 0.28; kitchen utensil 0.45; kitchen utensils
0.42; knife 0.24; knife block 0.27; lamp 0.48; lantern 0.49; laptop 0.31; lawn mower 1; letter tray 0.38;
light switch 0.085; lily 0.6; lipstick 0.095; locker 0.4; lounge chair 1.9; mailbox 0.61; microwave 0.4; milk
carton 0.27; mixer 0.36; moka pot 0.18; motorcycle 2; mug 0.12; newspaper 0.27; nightstand 0.49; oil bottles
0.35; open cardboard box 0.81; orchid 0.57; oval plate 0.25; oven 0.6; pallet 1.2; palm tree 11; paper towel
0.29; parasol 2.2; pen holder 0.17; pencil 0.14; piano bench 0.62; picture frame 0.2; pile of logs 0.7;
pinball machine 1.8; ping pong paddle 0.25; ping pong table 2.7; plant box 0.69; plate 0.2; playground 4.6;
pool table 2.6; pot 0.22; potted plant 0.67; potty 0.3; printer 0.45; projector 0.47; punching bag 1.5;
rabbit 0.43; radiator 1.3; radio 0.31; railing 1.2; range hood 0.6; recycling bin 0.36; refrigerator 1.7;
remote control 0.18; ring 0.024; roast chicken 0.3; rock 0.69; rocking horse 0.68; roll of tape 0.15; rowboat
3.1; rubik's cube 0.056; rug 1.7; ruler 0.31; safe 0.55; salt shaker 0.079; sandpit 1.3; sandwich maker 0.25;
saw 0.62; scissors 0.14; scooter 1.3; screwdriver 0.26; security camera 0.27; seesaw 2.4; shed 2; shelf 1.5;
shoes 0.28; shopping basket 0.61; shovel 0.99; shower stall 2; sink 0.9; skateboard 0.8; sleeping bag 2;
slippers 0.28; smartphone 0.11; smoke detector 0.1; sneakers 0.36; snowman 0.99; snowy pine tree 5.5; soap
dispenser 0.2; soccer ball 0.22; soccer goal 4.4; sofa 1.9; sofa bed 1.9; speaker 0.45; spice rack 0.31;
spiral staircase 3.6; sponge 0.1; spoon 0.18; spray bottle 0.3; stapler 0.12; steak 0.32; step ladder 1.3;
stereo 0.49; stereo amplifier 0.45; stool 0.79; stove 0.6; streetlight 3; stroller 0.99; sugar bowl 0.1;
suitcase 1; sunglasses 0.16; swimming pool 5; swing set 1.9; table 1.4; tablet 0.24; tatami 2; teapot 0.22;
teddy bear 0.33; telephone 0.2; television 0.78; tennis racket 0.69; toaster 0.27; toilet 0.77; toilet brush
0.39; toilet paper 0.2; towel 0.45; towel rack 0.6; toy car 0.27; toy motorcycle 0.91; toy train 0.3; track
lights 1; traffic cone 0.7; trampoline 3; trash can 0.77; tray 0.39; treadmill 2; tree 7.3; tricycle 0.6;
truck 17; tulips 0.43; tumble dryer 0.84; tv stand 1.5; umbrella 0.8; upright piano 1.4; urinal 0.75; van 6;
vase 0.4; vase of flowers 0.52; wall socket 0.085; wardrobe 2.1; washing machine 0.79; watch 0.16; water
cooler 1.3; water heater 0.68; weight bench 1.9; wheelbarrow 1.7; wheelchair 0.91; whiteboard 1.3; window
2.2; wine bottle 0.3; wood stove 1.3; workbench 1.7; xylophone 0.48; yogurt bottle 0.21
"""


def size_of(prompt: str) -> float | None:
    """Metres of the largest extent of what a prompt names, by its longest known name; None without one."""
    said = " ".join(re.findall(r"[a-z0-9']+", prompt.lower()))
    found = [name for name in sizes() if re.search(rf"\b{re.escape(name)}s?\b", said)]
    return sizes()[max(found, key=len)] if found else None


@lru_cache(maxsize=1)
def sizes() -> dict[str, float]:
    """Name to metres."""
    rows = (row.strip().rpartition(" ") for row in SIZES.replace("\n", " ").split(";"))
    return {name: float(metres) for name, _, metres in rows}
